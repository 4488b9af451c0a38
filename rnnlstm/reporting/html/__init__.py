"""The comparison as one HTML page that explains itself: no script, no network, nothing unescaped. Needs no torch."""
