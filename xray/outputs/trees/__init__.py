"""Datasets and predictions as trees that other tools open: COCO, YOLO, Pascal VOC; `export.py` writes them."""
