"""Card numbers."""


def pan(number):
    """A card number of its own for each number, with its check digit."""
    digits = f"4{number:014d}"
    doubled = [int(digit) * (2 - place % 2) for place, digit in enumerate(digits)]
    return digits + str(-sum(value // 10 + value % 10 for value in doubled) % 10)
