"""A score model: one network read three ways, and its weights as a vector."""
