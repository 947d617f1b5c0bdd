import msgspec
import numpy as np
import pytest
import samples
from msgspec.structs import asdict, replace
from randomized_defense_bench.leaderboard.paper.evidence import KINDS, Evidence
from randomized_defense_bench.leaderboard.records import RecordError

from randomized_defense_bench.arrays import pack


@pytest.mark.parametrize("kind", list(KINDS))
def test_what_is_written_is_read(tmp_path, kind):
    written = samples.evidence(kind)
    path = written.write(tmp_path)
    assert path.parent == tmp_path / "evidence"
    (read,) = Evidence.read_all(tmp_path)
    assert read.arrays.keys() == written.arrays.keys()
    for name, array in written.arrays.items():
        assert read.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(read.arrays[name], array)
    assert asdict(replace(read, arrays={})) == asdict(replace(written, arrays={}))


def test_a_file_is_named_by_what_determines_its_content():
    one = samples.evidence("masks")
    assert one.key.startswith("masks-mnist-quick-s0-")
    assert replace(one, measured_at="later", populations={}).key == one.key
    for change in ({"seed": 1}, {"budget": "paper"}, {"parameters": {}}, {"sha256": "f" * 64}):
        assert replace(one, **change).key != one.key


ZEROS = np.zeros((2, 3), np.float32)


def array(values=ZEROS, **changes):
    """The arrays of a trajectory as a file has them, with one in place of another."""
    arrays = {**samples.evidence("trajectory").arrays, "free": values}
    packed = msgspec.to_builtins(arrays, enc_hook=pack)
    packed["free"] |= changes
    return {"arrays": packed}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema_version": 2}, "Invalid value 2 - at `$.schema_version`"),
        ({"kind": "dreams"}, "kind 'dreams', known: masks"),
        ({"dataset": "../x"}, "`$.dataset`"),
        ({"seed": "0"}, "Expected `int`, got `str` - at `$.seed`"),
        ({"arrays": {}}, "expected ['free', 'linked', 'step']"),
        (array(dtype="object"), "Invalid enum value 'object'"),
        (array(shape=[2, 4]), "does not hold 8 elements"),
        (array(shape=[2**40, 2**40]), "an array of"),
        (array(shape=[-1, 3]), ">= 1 - at `$.shape[0]`"),
        (array(data="!"), "not usable"),
        (array(np.zeros((2, 4), "f4")), "4 steps"),
        (array(np.zeros((0, 3), "f4")), "shape"),
        (array(np.full((2, 3), np.nan, "f4")), "no finite number"),
        ({"surprise": 1}, "surprise"),
        ({"budget": "paper"}, "it holds trajectory-mnist-paper"),
    ],
)
def test_what_is_no_evidence_is_refused_by_name(tmp_path, changes, words):
    path = samples.evidence("trajectory").write(tmp_path)
    samples.spoil(path, **changes)
    with pytest.raises(RecordError, match="trajectory-mnist-quick") as error:
        Evidence.read_all(tmp_path)
    assert words in str(error.value)
