"""Reading runs back and showing them side by side. Needs no torch."""
