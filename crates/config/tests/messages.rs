//! Mistakes: what is said, and where.

mod common;

use common::{check, load, shown};

/// The example of the language's description, to the letter.
#[test]
fn the_example() {
    let text = "\
local app = upstream \"app\" { \"10.0.0.1:8080\", balence = \"least_requests\" }
site { \"example.com\",
  route \"/api/*\" { limit { rate = \"100 per second\" }, prxy(app) },
  proxy(app),
}
";
    let expected = "\
forebay.lua:1:47: upstream \"app\" has no option `balence`
  1 | local app = upstream \"app\" { \"10.0.0.1:8080\", balence = \"least_requests\" }
    |                                               ^^^^^^^ did you mean `balance`?
forebay.lua:3:35: limit: `rate` cannot be \"100 per second\"
  3 |   route \"/api/*\" { limit { rate = \"100 per second\" }, prxy(app) },
    |                                   ^^^^^^^^^^^^^^^^ expected COUNT/TIME, as \"100/s\" or \"20/10s\"
forebay.lua:3:55: unknown name `prxy`
  3 |   route \"/api/*\" { limit { rate = \"100 per second\" }, prxy(app) },
    |                                                       ^^^^ did you mean `proxy`?
3 mistakes; nothing was changed
";
    assert_eq!(shown(text), expected);
}
