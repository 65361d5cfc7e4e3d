"""The published methods once more, in numpy, from their formulas alone.

Nothing here imports what it is compared with. A real federation, with messages in their
wire form, runs beside each, and is compared with it after every round.
"""
