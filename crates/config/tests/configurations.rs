//! The configurations of the language's description load as they are written there.

mod common;

use common::{load_in, shown};

#[test]
fn smoke() {
    assert_eq!(
        shown("site { \"example.com\", compress, files \"/srv/www\" }"),
        ""
    );
}
