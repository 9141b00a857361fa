"""What is known of each set: complete, and for every set that has a loader of its own."""

import pytest

from klip.data.loading import load_catalogue
from klip.data.sources import SOURCES


@pytest.mark.parametrize("name", SOURCES)
def test_a_set_without_its_folder_says_where_it_belongs(name, tmp_path, monkeypatch):
    monkeypatch.setenv("KLIP_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError) as caught:
        load_catalogue(name)
    assert str(tmp_path / name) in str(caught.value)
    assert str(caught.value).endswith(f"{SOURCES[name].place}: {SOURCES[name].holds}")


def test_facts_are_complete():
    for source in SOURCES.values():
        assert all(
            fact == fact.strip() and (fact or key == "url")
            for key, fact in source._asdict().items()
        )
        assert any(f"{year}" in source.citation for year in range(2007, 2024))
