//! Programs of others that do what vifd does, or a part of it.
