//! What is kept of a stored response for decisions, beside its fields.

use crate::reasons::{LifetimeBy, WhyStored};
use crate::response::{Etag, ResponseFacts};
use crate::time::{MAX_SECONDS, Time, clamp_seconds};

/// When a request was sent and when the head of its response came (RFC 9111 §4.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// When the request was sent: `request_time`.
    pub asked: Time,
    /// When the response's head came: `response_time`.
    pub answered: Time,
}

/// What every hit looks at: 56 bytes, which are kept in memory for each object.
///
/// Made by [`storable`](crate::storable()), and anew whenever the response was validated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredFacts {
    /// When its age was 0, in milliseconds since 1970: before that year for what is very old.
    born_ms: i64,
    answered: Time,
    /// `NO_DATE` where there is none.
    last_modified: u64,
    date: u64,
    lifetime: u32,
    /// Seconds, or `NOT_SAID`.
    stale_while_revalidate: u32,
    stale_if_error: u32,
    status: u16,
    flags: u16,
    by: LifetimeBy,
    why: WhyStored,
}

const _: () = assert!(size_of::<StoredFacts>() <= 64);

const NO_DATE: u64 = u64::MAX;
const NOT_SAID: u32 = u32::MAX;

const NO_CACHE: u16 = 1;
const MUST_REVALIDATE: u16 = 1 << 1;
const PROXY_REVALIDATE: u16 = 1 << 2;
const S_MAXAGE: u16 = 1 << 3;
const ETAG_WEAK: u16 = 1 << 4;
const ETAG_STRONG: u16 = 1 << 5;

/// What [`StoredFacts`] are made of, beside the response.
pub(crate) struct Making {
    pub(crate) times: Times,
    pub(crate) initial_age_ms: u64,
    pub(crate) lifetime: u32,
    pub(crate) by: LifetimeBy,
    pub(crate) why: WhyStored,
    /// What the response says of its use does not count.
    pub(crate) forced: bool,
}

impl StoredFacts {
    pub(crate) fn new(response: &ResponseFacts, making: &Making) -> Self {
        let said = &response.said;
        let mut flags = match response.etag {
            Etag::None => 0,
            Etag::Weak => ETAG_WEAK,
            Etag::Strong => ETAG_STRONG,
        };
        if !making.forced {
            for (is_said, flag) in [
                (said.no_cache, NO_CACHE),
                (said.must_revalidate, MUST_REVALIDATE),
                (said.proxy_revalidate, PROXY_REVALIDATE),
                (said.s_maxage.is_some(), S_MAXAGE),
            ] {
                if is_said {
                    flags |= flag;
                }
            }
        }
        let answered = making.times.answered;
        Self {
            born_ms: signed(answered.as_millis()).saturating_sub(signed(making.initial_age_ms)),
            answered,
            last_modified: response.last_modified.unwrap_or(NO_DATE),
            date: response.date.unwrap_or(answered.as_secs()),
            lifetime: making.lifetime,
            stale_while_revalidate: said.stale_while_revalidate.unwrap_or(NOT_SAID),
            stale_if_error: said.stale_if_error.unwrap_or(NOT_SAID),
            // A part is stored as a part of its whole.
            status: if response.status == 206 {
                200
            } else {
                response.status
            },
            flags,
            by: making.by,
            why: making.why,
        }
    }

    /// The same as it is kept on a disk: little-endian, in the order of the fields. What changes it
    /// needs another version of the formats that hold it.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let mut at = 0;
        let mut put = |field: &[u8]| {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        };
        put(&self.born_ms.to_le_bytes());
        put(&self.answered.as_millis().to_le_bytes());
        put(&self.last_modified.to_le_bytes());
        put(&self.date.to_le_bytes());
        put(&self.lifetime.to_le_bytes());
        put(&self.stale_while_revalidate.to_le_bytes());
        put(&self.stale_if_error.to_le_bytes());
        put(&self.status.to_le_bytes());
        put(&self.flags.to_le_bytes());
        put(&[self.by as u8, self.why as u8]);
        bytes
    }

    /// How long [`to_bytes`](Self::to_bytes) is.
    pub const BYTES: usize = 50;

    /// Reads what [`to_bytes`](Self::to_bytes) has made. `None`: it has not.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let mut rest = &bytes[..];
        let born = take(&mut rest)?;
        let answered = u64::from_le_bytes(take(&mut rest)?);
        let facts = Self {
            born_ms: i64::from_le_bytes(born),
            answered: Time::from_millis(answered),
            last_modified: u64::from_le_bytes(take(&mut rest)?),
            date: u64::from_le_bytes(take(&mut rest)?),
            lifetime: u32::from_le_bytes(take(&mut rest)?),
            stale_while_revalidate: u32::from_le_bytes(take(&mut rest)?),
            stale_if_error: u32::from_le_bytes(take(&mut rest)?),
            status: u16::from_le_bytes(take(&mut rest)?),
            flags: u16::from_le_bytes(take(&mut rest)?),
            by: *LifetimeBy::ALL.get(usize::from(take::<1>(&mut rest)?[0]))?,
            why: *WhyStored::ALL.get(usize::from(take::<1>(&mut rest)?[0]))?,
        };
        let known =
            NO_CACHE | MUST_REVALIDATE | PROXY_REVALIDATE | S_MAXAGE | ETAG_WEAK | ETAG_STRONG;
        let fits = (200..600).contains(&facts.status) && facts.flags & !known == 0;
        fits.then_some(facts)
    }

    /// `current_age` (RFC 9111 §4.2.3), in milliseconds.
    #[inline]
    #[must_use]
    pub fn age_ms(&self, now: Time) -> u64 {
        // Before it was born it is new.
        let age = signed(now.as_millis()).saturating_sub(self.born_ms);
        u64::try_from(age).unwrap_or(0)
    }

    /// `current_age` in whole seconds, as it is sent in `Age`.
    #[inline]
    #[must_use]
    pub fn age(&self, now: Time) -> u32 {
        clamp_seconds(self.age_ms(now) / 1000)
    }

    #[inline]
    pub(crate) fn lifetime_ms(&self) -> u64 {
        u64::from(self.lifetime) * 1000
    }

    /// `freshness_lifetime` in seconds (RFC 9111 §4.2.1).
    #[must_use]
    pub fn lifetime(&self) -> u32 {
        self.lifetime
    }

    /// For how many seconds more it is fresh; negative once it is stale.
    #[must_use]
    pub fn ttl(&self, now: Time) -> i64 {
        (signed(self.lifetime_ms()) - signed(self.age_ms(now))).div_euclid(1000)
    }

    /// Whether it is fresh (RFC 9111 §4.2), whatever may be asked of it beyond that.
    #[inline]
    #[must_use]
    pub fn is_fresh(&self, now: Time) -> bool {
        self.age_ms(now) < self.lifetime_ms()
    }

    /// When it becomes stale. It may be used, or validated, beyond that.
    #[must_use]
    pub fn fresh_until(&self) -> Time {
        let end = self.born_ms.saturating_add(signed(self.lifetime_ms()));
        Time::from_millis(u64::try_from(end).unwrap_or(0))
    }

    /// The same, stale from `at` on, as a soft purge asks for: stale responses may be used as far
    /// as they could be otherwise.
    #[must_use]
    pub fn stale_from(mut self, at: Time) -> Self {
        self.lifetime = self.lifetime.min(self.age(at));
        self
    }

    /// Where its lifetime comes from.
    #[must_use]
    pub fn lifetime_by(&self) -> LifetimeBy {
        self.by
    }

    /// What allowed to store it.
    #[must_use]
    pub fn why_stored(&self) -> WhyStored {
        self.why
    }

    /// Its status; that of a stored part is 200, as of its whole.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// When its head came.
    #[must_use]
    pub fn answered(&self) -> Time {
        self.answered
    }

    /// By what stored responses are ordered: where several match, the most recent one is used, the
    /// one whose `Date` is the latest (RFC 9111 §4).
    #[must_use]
    pub fn recency(&self) -> impl Ord + use<> {
        (self.date, self.answered)
    }

    /// `Last-Modified` in seconds since 1970.
    #[must_use]
    pub fn last_modified(&self) -> Option<u64> {
        (self.last_modified != NO_DATE).then_some(self.last_modified)
    }

    /// What a client's `If-Modified-Since` is compared with: `Last-Modified`, or else `Date`, or
    /// else when it was received (RFC 9111 §4.3.2). Not for `If-Range`.
    #[must_use]
    pub fn modified(&self) -> u64 {
        self.last_modified().unwrap_or(self.date)
    }

    /// Whether it has an entity tag, weak or strong.
    #[must_use]
    pub fn has_etag(&self) -> bool {
        self.flags & (ETAG_WEAK | ETAG_STRONG) != 0
    }

    /// Whether it has a strong entity tag.
    #[must_use]
    pub fn has_strong_etag(&self) -> bool {
        self.flags & ETAG_STRONG != 0
    }

    /// Whether its `Last-Modified` is a strong validator: the response was made at least a second
    /// after the change (RFC 9110 §8.8.2.2).
    #[must_use]
    pub fn has_strong_date(&self) -> bool {
        self.last_modified().is_some_and(|time| time < self.date)
    }

    /// Whether it can be validated at all.
    #[must_use]
    pub fn has_validator(&self) -> bool {
        self.has_etag() || self.last_modified != NO_DATE
    }

    #[inline]
    pub(crate) fn no_cache(&self) -> bool {
        self.flags & NO_CACHE != 0
    }

    pub(crate) fn must_revalidate(&self) -> bool {
        self.flags & MUST_REVALIDATE != 0
    }

    pub(crate) fn proxy_revalidate(&self) -> bool {
        self.flags & PROXY_REVALIDATE != 0
    }

    pub(crate) fn has_s_maxage(&self) -> bool {
        self.flags & S_MAXAGE != 0
    }

    pub(crate) fn stale_while_revalidate(&self) -> Option<u32> {
        (self.stale_while_revalidate <= MAX_SECONDS).then_some(self.stale_while_revalidate)
    }

    pub(crate) fn stale_if_error(&self) -> Option<u32> {
        (self.stale_if_error <= MAX_SECONDS).then_some(self.stale_if_error)
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (field, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*field)
}

/// Moments and ages fit by far; what does not is as far away as can be.
#[inline]
fn signed(millis: u64) -> i64 {
    i64::try_from(millis).unwrap_or(i64::MAX)
}
