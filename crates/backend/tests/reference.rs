//! The reference back end against its own suite: contracts that even it could break, such as
//! refusals and the independence of rows.

use bantam_backend::{conformance, reference::Reference};

#[test]
fn reference_passes_its_own_suite() {
    conformance::check(&Reference);
}
