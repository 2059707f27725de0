"""Model judges of harm: how each family is asked and read, and its errors against human labels."""
