//! Named tensors in a fixed order.
