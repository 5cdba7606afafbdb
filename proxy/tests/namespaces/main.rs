//! The node proxy in real network namespaces: pods, interception, and what a client sees. Each test
//! makes its own cluster. Without the capabilities for that, tests are skipped, which is a failure
//! if `SEALANE_TEST_REQUIRE` is `all`.

mod intercept;
mod world;
