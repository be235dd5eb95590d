//! The variables of a request that are made of its fields and its path (RFC 3875 §4.1).

use forebay_fields::{Field, Fields, Known, KnownSet};

use crate::params::{ParamsBuilder, PushError, write_variable};

/// Adds `HTTP_*` for the fields of a request, each name once.
///
/// Left out are those of the connection and of the body (which have variables of their own, or
/// none: §4.1.18), and every name with anything but letters, digits and `-`: `X_A`, and to PHP
/// `X.A`, would become the variable of `X-A`. `Proxy` would be `HTTP_PROXY`, which programs take
/// for the address of their own proxy ("httpoxy"). Nor are there those in `skip`, and variables that
/// are not `wanted`.
///
/// # Errors
/// A value cannot be passed, or there are too many bytes.
pub fn push_fields(
    fields: &Fields,
    skip: KnownSet,
    wanted: impl Fn(&[u8]) -> bool,
    params: &mut ParamsBuilder,
) -> Result<(), PushError> {
    let skip = skip.union(NOT_PASSED);
    let repeated = Repeated::of(fields);
    for (at, field) in fields.iter().enumerate() {
        let is_passed = match field.known {
            Some(known) => !skip.contains(known),
            None => is_plain(field.name),
        };
        if !is_passed {
            continue;
        }
        if !repeated.may_have(&field) {
            params.push_field(field.name, field.value, &wanted)?;
            continue;
        }
        let same = fields.iter().enumerate();
        let same = same.filter(|(_, one)| is_same(one, &field));
        if same.clone().next().is_none_or(|(first, _)| first == at) {
            let mut variable = Vec::new();
            write_variable(field.name, &mut variable);
            if wanted(&variable) {
                // RFC 6265 §5.4: cookies have a separator of their own.
                let separator: &[u8] = match field.known {
                    Some(Known::Cookie) => b"; ",
                    _ => b", ",
                };
                params.push_joined(&variable, same.map(|(_, one)| one.value), separator)?;
            }
        }
    }
    Ok(())
}

/// Which names stand in several lines of a head, so that not each has to be compared with all.
struct Repeated {
    known: KnownSet,
    /// By a bit that some other names have, too.
    unknown: u64,
}

impl Repeated {
    fn of(fields: &Fields) -> Self {
        let (mut known, mut known_again) = (KnownSet::EMPTY, KnownSet::EMPTY);
        let (mut unknown, mut unknown_again) = (0, 0);
        for field in fields.iter() {
            if let Some(name) = field.known {
                if known.contains(name) {
                    known_again.insert(name);
                }
                known.insert(name);
            } else {
                let bit = bit_of(field.name);
                unknown_again |= unknown & bit;
                unknown |= bit;
            }
        }
        Self {
            known: known_again,
            unknown: unknown_again,
        }
    }

    fn may_have(&self, field: &Field<'_>) -> bool {
        match field.known {
            Some(known) => self.known.contains(known),
            None => self.unknown & bit_of(field.name) != 0,
        }
    }
}

/// One bit of 64, the same for a name in capitals.
fn bit_of(name: &[u8]) -> u64 {
    let at = |at: usize| name.get(at).map_or(0, |byte| usize::from(byte | 0x20));
    let sum = name.len() * 5 + at(name.len().wrapping_sub(1)) * 3 + at(name.len() / 2);
    1 << (sum % 64)
}

/// Whether a name can be told from all others as a variable.
fn is_plain(name: &[u8]) -> bool {
    name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
}

/// Whether two fields have one name.
fn is_same(one: &Field<'_>, other: &Field<'_>) -> bool {
    one.known == other.known
        && one.name.len() == other.name.len()
        && (one.known.is_some() || one.name.eq_ignore_ascii_case(other.name))
}

const NOT_PASSED: KnownSet = KnownSet::HOP_BY_HOP.union(KnownSet::of(&[
    Known::ContentLength,
    Known::ContentType,
    Known::Proxy,
]));

/// A path cut behind the script that it names (§4.1.5, §4.1.13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathSplit<'a> {
    /// `SCRIPT_NAME`.
    pub script_name: &'a [u8],
    /// `PATH_INFO`: empty, or from a slash on.
    pub path_info: &'a [u8],
}

impl<'a> PathSplit<'a> {
    /// Cuts `path` behind `script`; `None` if the path does not lead through it: it is shorter
    /// than the script, names another, or goes on within the last segment.
    #[must_use]
    pub fn of(path: &'a [u8], script: &[u8]) -> Option<Self> {
        let path_info = path.strip_prefix(script)?;
        let script_name = path.get(..script.len())?;
        let at_slash = path_info.first().is_none_or(|&b| b == b'/');
        (at_slash && !script.is_empty()).then_some(Self {
            script_name,
            path_info,
        })
    }
}

/// The scripts that a path could name, the whole path first, then without its last segment, and
/// so on; at most `most`. The first that exists as a file is the one: so `/upload.jpg/x.php` is
/// never a script while `/upload.jpg` is a file.
pub fn script_candidates(path: &[u8], most: usize) -> impl Iterator<Item = PathSplit<'_>> {
    let ends = (1..=path.len()).rev();
    ends.filter(|&end| path.get(end).is_none_or(|&b| b == b'/'))
        .filter_map(|end| PathSplit::of(path, path.get(..end)?))
        .take(most)
}
