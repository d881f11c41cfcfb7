"""The score of attacks that may change a few small patches."""

__all__ = ['patch_score']


def patch_score(area: float, max_area: float, clean: int, adversarial: int) -> float | None:
    """``(2 - area / max_area) * (1 - min(adversarial, clean) / clean)``: few pixels, few detections.

    That of the Tianchi challenge on detectors (arXiv 2012.13692), for an image within the limits.

    Args:
        area: share of the image that is changed.
        max_area: how large it may be.
        clean, adversarial: how many boxes are detected before and after.

    Returns:
        0 to 2; None where nothing is detected on the clean image.

    Example:
        >>> patch_score(0.01, 0.02, clean=4, adversarial=1)
        1.125
    """
    if not clean:
        return None
    return (2 - area / max_area) * (1 - min(adversarial, clean) / clean)
