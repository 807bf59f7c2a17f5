"""Two policy sets at once: one beside the other on shares of the instances, or one in the other's shadow."""
