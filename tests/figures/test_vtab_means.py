from vitral.figures.vtab_means import describe_paper_means


def test_the_papers_means_are_table_9s():
    assert describe_paper_means() == [
        "Table 9   ViT-H/14, JFT-300M: "
        "natural 86.7 %, specialized 87.0 %, structured 65.0 %, overall 77.6 %",
        "Table 9   ViT-L/16, JFT-300M: "
        "natural 85.6 %, specialized 86.7 %, structured 63.0 %, overall 76.3 %",
        "Table 9   ViT-L/16, ImageNet-21k: "
        "natural 83.3 %, specialized 84.7 %, structured 57.5 %, overall 72.7 %",
    ]
