//! Controllers, written on `kube::Client` alone.
