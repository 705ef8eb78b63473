//! Ranks as MPI processes.
