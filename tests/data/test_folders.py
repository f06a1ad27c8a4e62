"""Files below a folder, through links."""

from kgmgt_jax.data.folders import files_below


def _touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_links_to_folders_are_followed_in_order(tmp_path):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    _touch(root / "b" / "2.mat", root / "1.mat", elsewhere / "deep" / "3.mat")
    (root / "a").symlink_to(elsewhere)
    expected = [root / "1.mat", root / "a" / "deep" / "3.mat", root / "b" / "2.mat"]
    assert files_below(root) == expected
    (tmp_path / "link").symlink_to(root)
    assert files_below(tmp_path / "link") == [
        tmp_path / "link" / path.relative_to(root) for path in expected
    ]


def test_a_folder_reached_twice_counts_once_where_it_lies(tmp_path):
    _touch(tmp_path / "z" / "1.mat")
    (tmp_path / "a").symlink_to(tmp_path / "z")
    (tmp_path / "z" / "up").symlink_to(tmp_path)
    assert files_below(tmp_path) == [tmp_path / "z" / "1.mat"]


def test_a_link_to_nothing_is_no_file(tmp_path):
    _touch(tmp_path / "1.mat")
    (tmp_path / "2.mat").symlink_to(tmp_path / "gone.mat")
    assert files_below(tmp_path) == [tmp_path / "1.mat"]
