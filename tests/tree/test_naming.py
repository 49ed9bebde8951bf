from webpd.tree import naming


def test_jpeg_and_png_are_originals_in_any_case() -> None:
    for name in ("a.jpg", "A.JPG", "b.JpEg", "c.png", "d.PNG", "имя.jpg", "two.dots.png"):
        assert naming.is_original(name), name


def test_other_names_are_not_originals() -> None:
    for name in ("a.webp", "a.jpg.webp", "a.gif", "jpg", "a.jpg.bak", "a.jpg~", ".hidden.jpg", ".jpg", "a.svg"):
        assert not naming.is_original(name), name


def test_the_sidecar_keeps_the_whole_name_so_that_jpg_and_png_do_not_collide() -> None:
    assert naming.sidecar_of("a.jpg") == "a.jpg.webp"
    assert naming.sidecar_of("a.png") == "a.png.webp"
    assert naming.original_of("x/A.JPG.webp") == "x/A.JPG"


def test_a_webp_that_is_named_after_no_original_is_no_sidecar() -> None:
    for name in ("a.webp", "a.gif.webp", ".hidden.jpg.webp", "a.jpg"):
        assert naming.original_of(name) is None, name


def test_a_name_must_leave_room_for_the_suffix_in_bytes_not_letters() -> None:
    assert naming.fits("a" * 246 + ".jpg")
    assert not naming.fits("a" * 247 + ".jpg")
    assert not naming.fits("ж" * 124 + ".jpg")


def test_excluded_folders_are_matched_by_the_end_of_their_path_in_whole_components() -> None:
    exclude = naming.Exclusion(["resize_cache/webp", "upload/dev2fun.*", "a*z"])
    assert "/var/a/b/z" not in exclude
    assert "/var/abz" in exclude
    assert "/var/www/upload/resize_cache/webp" in exclude
    assert "/var/www/upload/dev2fun.imagecompress" in exclude
    assert "/var/www/upload/resize_cache/webp2" not in exclude
    assert "/var/www/upload/my_resize_cache/webp" not in exclude
    assert "/var/www/upload/resize_cache" not in exclude


def test_no_pattern_excludes_nothing() -> None:
    assert "/anything" not in naming.Exclusion([])
