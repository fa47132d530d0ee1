import pytest

from vitral.data.sources.find import list_source
from vitral.errors import RequestError


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "there is nothing at .*nowhere: give a folder of class folders"),
        ("notes.txt", r"notes\.txt is of no form that is read: give a folder of class folders"),
        ("train.zip", r"train\.zip is of no form that is read"),
    ],
)
def test_a_path_of_no_known_form_is_a_bad_request(tmp_path, fill, name, message):
    fill(tmp_path, ["notes.txt", "train.zip"])
    with pytest.raises(RequestError, match=message):
        list_source(tmp_path / name)
