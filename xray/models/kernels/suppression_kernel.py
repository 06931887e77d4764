"""What `xray.models.detection.suppression` does with many boxes on a CPU, compiled by numba."""

import numba
import numpy as np

_F = np.float32


# Without contraction: each number is rounded as torchvision's `nms` rounds it.
@numba.njit(nogil=True, cache=True, error_model="numpy")
def keep_best(boxes, threshold, keep):
    """Which of N boxes remain when none overlaps a better one that remains by more than `threshold` IoU, into `keep`.

    boxes: (4, N) float32, x1, y1, x2, y2, the best first. threshold: float32. keep: (N,) uint8, 1 for those that
    remain.
    """
    n = boxes.shape[1]
    x1, y1, x2, y2 = boxes[0], boxes[1], boxes[2], boxes[3]
    area = np.empty(n, _F)
    for j in range(n):
        area[j] = (x2[j] - x1[j]) * (y2[j] - y1[j])
        keep[j] = 1
    for i in range(n):
        if keep[i]:
            left, top, right, bottom, size = x1[i], y1[i], x2[i], y2[i], area[i]
            for j in range(i + 1, n):
                from_x, from_y = x1[j] if left < x1[j] else left, y1[j] if top < y1[j] else top
                to_x, to_y = x2[j] if x2[j] < right else right, y2[j] if y2[j] < bottom else bottom
                wide, high = to_x - from_x, to_y - from_y
                wide, high = wide if wide > _F(0) else _F(0), high if high > _F(0) else _F(0)
                common = wide * high
                keep[j] &= not common / (size + area[j] - common) > threshold
