"""Association → instance → series: receiving without losing."""
