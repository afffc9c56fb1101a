"""The part of a page that a program writes, between two marks in what is written by hand."""


def marked(text: str, marks: tuple[str, str], inner: str) -> str:
    """A text with something else between two marks, which stand in it once each.

    Raises:
        ValueError: they do not.
    """
    begin, end = marks
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"not once in the page: {begin} ... {end}")
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n\n{inner}\n\n{end}{rest.partition(end)[2]}"
