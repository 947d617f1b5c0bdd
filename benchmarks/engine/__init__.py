"""A run on several devices: a plan of trainings and cells, and workers that do them.

pytest stays the driver. `plan` computes from the collected cases what there is to do, `scheduling`
says what comes next, `dispatch` gives it to workers, which are processes (`local`) or Ray's actors
(`cluster`). The driver alone writes records.
"""
