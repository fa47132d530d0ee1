from vitral.figures.dataset import data_section


def test_the_data_report_is_told(part_of, run_dir):
    page = part_of(run_dir, data_section)
    counts = [row for row in page.rows if row[0] == "All"]
    assert counts == [["All", "210", "60"]]
    assert "smallest 90 \N{MULTIPLICATION SIGN} 80" in page.text
    assert "JPEG (200), PNG (10)" in page.text
    assert "cut short: 2" in page.text
    assert "Within a split: 1. Across splits: 0." in page.text
    assert "A note about the data." in page.text
