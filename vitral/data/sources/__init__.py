"""The forms that data may have: each lists its examples without opening them."""
