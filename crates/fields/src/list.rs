//! List-valued fields (RFC 9110 §5.6.1) and cookies (RFC 6265 §4.2.1).

use crate::fields::Values;
use crate::syntax::trim;

/// The members of a list-valued field, over all its lines; see [`crate::Fields::list`].
#[derive(Clone)]
pub struct ListItems<'a, 'n> {
    rest: &'a [u8],
    lines: Option<Values<'a, 'n>>,
}

/// The members of one list: separated by commas that are not inside a quoted string, without
/// the white space around them; empty ones are left out (RFC 9110 §5.6.1.2).
///
/// A quoted string that is not closed reaches to the end.
#[must_use]
pub fn list_items(value: &[u8]) -> ListItems<'_, 'static> {
    ListItems {
        rest: value,
        lines: None,
    }
}

impl<'a, 'n> ListItems<'a, 'n> {
    pub(crate) fn over(lines: Values<'a, 'n>) -> Self {
        Self {
            rest: &[],
            lines: Some(lines),
        }
    }
}

impl<'a> Iterator for ListItems<'a, '_> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            while !self.rest.is_empty() {
                let (item, rest) = split_item(self.rest);
                self.rest = rest;
                if !item.is_empty() {
                    return Some(item);
                }
            }
            self.rest = self.lines.as_mut()?.next()?;
        }
    }
}

/// The first member, trimmed, and what follows its comma.
fn split_item(list: &[u8]) -> (&[u8], &[u8]) {
    let mut quoted = false;
    let mut escaped = false;
    for (at, &byte) in list.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return (trim(&list[..at]), &list[at + 1..]),
            _ => {}
        }
    }
    (trim(list), &[])
}

/// The cookies of a request as (name, value); see [`crate::Fields::cookies`].
#[derive(Clone)]
pub struct Cookies<'a> {
    rest: &'a [u8],
    lines: Values<'a, 'static>,
}

impl<'a> Cookies<'a> {
    pub(crate) fn over(lines: Values<'a, 'static>) -> Self {
        Self { rest: &[], lines }
    }
}

impl<'a> Iterator for Cookies<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            while !self.rest.is_empty() {
                let end = self
                    .rest
                    .iter()
                    .position(|&b| b == b';')
                    .unwrap_or(self.rest.len());
                let pair = &self.rest[..end];
                self.rest = self.rest.get(end + 1..).unwrap_or_default();
                // Without `=` it is no cookie-pair; browsers send such as a value without a name.
                if let Some(equals) = pair.iter().position(|&b| b == b'=') {
                    return Some((trim(&pair[..equals]), trim(&pair[equals + 1..])));
                }
            }
            self.rest = self.lines.next()?;
        }
    }
}
