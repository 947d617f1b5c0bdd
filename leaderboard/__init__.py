"""From records to a page. Never imports torch."""
