//! What a store's records add up to: the state a broker starts with.
