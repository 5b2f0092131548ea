"""The division of a batch into equal parts, which are computed one after the other."""


def number_of_parts(size: int, most: int | None) -> int:
    """The number of equal parts of a batch: the least with at most `most` examples in each.

    One if `most` is None, or if such parts would have less than half as many, as in a batch whose
    size is a prime number.

    Args:
      size: examples of the batch.
      most: at least 1, or None.
    """
    if most is None or size <= most:
        return 1
    number = next(n for n in range(1, size + 1) if size % n == 0 and size // n <= most)
    return number if 2 * (size // number) >= most else 1
