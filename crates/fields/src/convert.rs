//! To and from `http::HeaderMap`, for the one protocol whose library wants it (HTTP/2).

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::edit::EditError;
use crate::fields::Fields;

/// Why fields could not become a `HeaderMap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConvertError {
    /// `http` does not take this name (it is longer than 64 KiB).
    Name,
    /// `http` does not take this value.
    Value,
    /// There are more fields than a `HeaderMap` holds.
    TooMany,
}

impl fmt::Display for ConvertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "the name of a field cannot be converted",
            Self::Value => "the value of a field cannot be converted",
            Self::TooMany => "there are too many fields to be converted",
        })
    }
}

impl std::error::Error for ConvertError {}

/// The fields as a map; the order between fields of different names and the case are lost.
///
/// # Errors
/// A name, a value or their number is beyond what `http` takes.
pub fn to_header_map(fields: &Fields) -> Result<HeaderMap, ConvertError> {
    let mut map = HeaderMap::try_with_capacity(fields.len()).map_err(|_| ConvertError::TooMany)?;
    for field in fields {
        let name = HeaderName::from_bytes(field.name).map_err(|_| ConvertError::Name)?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| ConvertError::Value)?;
        map.try_append(name, value)
            .map_err(|_| ConvertError::TooMany)?;
    }
    Ok(map)
}

/// Appends the entries of a map; names are in lower case then.
///
/// # Errors
/// As for [`Fields::append`]; what was appended before stays.
pub fn from_header_map(map: &HeaderMap, fields: &mut Fields) -> Result<(), EditError> {
    map.iter()
        .try_for_each(|(name, value)| fields.append(name.as_str(), value.as_bytes()))
}
