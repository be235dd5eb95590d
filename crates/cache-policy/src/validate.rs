//! What comes of asking the origin about a stored response (RFC 9111 §4.3).

use forebay_fields::{EditError, Fields, Known, KnownSet};

use crate::policy::Policy;
use crate::prepare::prepare_fields;
use crate::reasons::WhyNot;
use crate::request::RequestFacts;
use crate::response::{Etag, ResponseFacts};
use crate::reuse::Origin;
use crate::storable::storable;
use crate::stored::{StoredFacts, Times};
use crate::vary::Vary;

/// What the answer to a conditional request means (RFC 9111 §4.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validation {
    /// 304: [`select`] tells which stored responses are brought up to date by it, by [`update`].
    NotModified,
    /// The origin has failed: [`reuse`](crate::reuse()) tells whether a stored response is used
    /// nevertheless.
    Failed(Origin),
    /// The answer is to be used, and stored in place of the old one if it may be. Also any other
    /// error: what is gone is gone.
    Replace,
}

impl Validation {
    /// By the status of the answer.
    #[must_use]
    pub fn of(status: u16) -> Self {
        match status {
            304 => Self::NotModified,
            500 | 502 | 503 | 504 => Self::Failed(Origin::Error),
            _ => Self::Replace,
        }
    }
}

/// Which of the stored responses a 304 is for (RFC 9111 §4.3.4), as indices. They are all that the
/// conditional request was made from ([`make_conditional`](crate::make_conditional)).
///
/// Where it names no validator at all, it is for the one stored response that was asked about, if
/// it was one: many origins leave out the entity tag that they should send.
///
/// None: nothing stored is what the origin means. Ask again without conditions.
#[must_use]
pub fn select<'a>(
    new: &ResponseFacts,
    new_fields: &Fields,
    stored: impl IntoIterator<Item = (&'a StoredFacts, &'a Fields)>,
) -> Vec<usize> {
    let candidates: Vec<_> = stored.into_iter().collect();
    let all_that = |matches: &dyn Fn(&StoredFacts, &Fields) -> bool| -> Vec<usize> {
        let matching = |(at, (facts, fields)): (usize, &(&StoredFacts, &Fields))| {
            matches(facts, fields).then_some(at)
        };
        candidates.iter().enumerate().filter_map(matching).collect()
    };
    let latest = |mut found: Vec<usize>| -> Vec<usize> {
        let recent = |at: &usize| candidates.get(*at).map(|(facts, _)| facts.recency());
        found.sort_by_key(recent);
        found.pop().into_iter().collect()
    };
    let tag = new_fields.get(Known::Etag).unwrap_or_default();
    // An entity tag says more than a date: where there is one, it decides.
    match (new.etag, new.last_modified) {
        (Etag::Strong, _) => all_that(&|facts, fields| {
            facts.has_strong_etag() && fields.get(Known::Etag) == Some(tag)
        }),
        (Etag::Weak, _) => latest(all_that(&|facts, fields| {
            facts.has_etag() && fields.get(Known::Etag).map(opaque) == Some(opaque(tag))
        })),
        (Etag::None, Some(time)) => {
            let same = |facts: &StoredFacts, _: &Fields| facts.last_modified() == Some(time);
            let strong = |facts: &StoredFacts, fields: &Fields| {
                facts.has_strong_date() && same(facts, fields)
            };
            let is_strong = new.date.is_some_and(|date| time < date);
            match all_that(&strong) {
                found if is_strong && !found.is_empty() => found,
                _ => latest(all_that(&same)),
            }
        }
        (Etag::None, None) if candidates.len() == 1 => vec![0],
        (Etag::None, None) => Vec::new(),
    }
}

/// A tag without the mark of weakness (RFC 9110 §8.8.3.2).
fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// What became of a stored response that was brought up to date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Updated {
    /// It is stored with the fields as they are now.
    Stored {
        /// What decisions look at now.
        facts: StoredFacts,
        /// By what it varies now, if that is something else: its secondary key is another.
        vary: Option<Vary>,
    },
    /// It answers this request, but what is stored stays as it was: the request is one whose
    /// response is not to be kept.
    Left(WhyNot),
    /// It answers this request and is dropped: by what it says now it may not be stored.
    Dropped(WhyNot),
}

/// Fields that an update leaves alone. The length and the part are those of the stored content;
/// coding and type are what derived bodies were made from, and PHP puts its default type on every
/// 304 (RFC 9111 §3.2 lets both be kept). The entity tag is the content's name.
const KEPT: KnownSet = KnownSet::of(&[
    Known::ContentLength,
    Known::ContentEncoding,
    Known::ContentType,
    Known::ContentRange,
    Known::ContentMd5,
    Known::Etag,
]);

/// Brings a stored response up to date by the fields of a 304 that was [`select`]ed for it, or of
/// a response to HEAD that [`head_matches`] (RFC 9111 §3.2). `fields` are changed, and are those
/// to answer with, whatever is said of storing them.
///
/// # Errors
/// The fields are too large together. They may have been changed in part: drop the response.
pub fn update(
    policy: &Policy,
    request: &RequestFacts,
    stored: &StoredFacts,
    fields: &mut Fields,
    new: &ResponseFacts,
    new_fields: &Fields,
    times: &Times,
) -> Result<Updated, EditError> {
    let before = Vary::of(fields);
    let mut incoming = new_fields.clone();
    prepare_fields(policy, new, times, &mut incoming)?;
    incoming.remove_all(KEPT);
    if !policy.store_set_cookie {
        incoming.remove(Known::SetCookie);
    }
    for (at, field) in incoming.iter().enumerate() {
        let is_same = |other: &[u8]| other.eq_ignore_ascii_case(field.name);
        if !incoming
            .iter()
            .take(at)
            .any(|earlier| is_same(earlier.name))
        {
            fields.remove(field.name);
        }
        fields.append(field.name, field.value)?;
    }
    // A tag where there was none names the content only if the content is surely the same.
    if !stored.has_etag()
        && new.etag != Etag::None
        && stored.has_strong_date()
        && new.last_modified == stored.last_modified()
        && let Some(tag) = new_fields.get(Known::Etag)
    {
        fields.set(Known::Etag, tag)?;
    }
    let mut merged = ResponseFacts::of(stored.status(), fields, false);
    // Among the stored fields there is no Age any more.
    merged.age = new.age;
    let mut asked = *request;
    (asked.get, asked.head) = (true, false);
    let vary = (merged.vary != before).then(|| merged.vary.clone());
    Ok(match storable(policy, &asked, &merged, times) {
        Ok(facts) => Updated::Stored { facts, vary },
        Err(why) if why.is_of_request() => Updated::Left(why),
        Err(why) => Updated::Dropped(why),
    })
}

/// Whether a 200 to HEAD is about this stored response (RFC 9111 §4.3.5): all of `ETag`,
/// `Last-Modified` and `Content-Length` that it has are the same. If so, it is brought up to date
/// by [`update`]; if not, it is [stale](StoredFacts::stale_from) from now on.
///
/// `complete_len` is the length of the stored representation, as far as it is known.
#[must_use]
pub fn head_matches(stored: &Fields, complete_len: Option<u64>, head: &Fields) -> bool {
    let same = |name: Known| !head.contains(name) || head.get(name) == stored.get(name);
    let len = head.get(Known::ContentLength).map(crate::time::number);
    let same_len = match (len, complete_len) {
        (None, _) => true,
        (Some(len), stored) => len.is_some() && len == stored,
    };
    same(Known::Etag) && same(Known::LastModified) && same_len
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reasons::LifetimeBy;
    use crate::testing::{Lines, NOW, after, fields, request, stored_with, text};
    use crate::time::Time;

    #[test]
    fn rfc9111_4_3_3_what_an_answer_means() {
        for (status, expected) in [
            (304, Validation::NotModified),
            (200, Validation::Replace),
            (206, Validation::Replace),
            (404, Validation::Replace),
            (501, Validation::Replace),
            (500, Validation::Failed(Origin::Error)),
            (503, Validation::Failed(Origin::Error)),
        ] {
            assert_eq!(Validation::of(status), expected, "{status}");
        }
    }

    const EARLY: (&str, &str) = ("Last-Modified", "Sun, 06 Nov 1994 08:00:00 GMT");
    const LATE: (&str, &str) = ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT");
    const A: (&str, &str) = ("ETag", "\"a\"");
    const B: (&str, &str) = ("ETag", "\"b\"");
    const WEAK_A: (&str, &str) = ("ETag", "W/\"a\"");
    const DATE: (&str, &str) = ("Date", "Sun, 06 Nov 1994 08:49:37 GMT");

    fn check(new: Lines<'_>, stored: &[Lines<'_>], expected: &[usize]) {
        let new_fields = fields(new);
        let facts = ResponseFacts::of(304, &new_fields, false);
        let stored: Vec<_> = stored.iter().map(|lines| stored_with(lines)).collect();
        let candidates = stored.iter().map(|(facts, fields)| (facts, fields));
        assert_eq!(select(&facts, &new_fields, candidates), expected, "{new:?}");
    }

    #[test]
    fn rfc9111_4_3_4_a_strong_validator_selects_all_that_have_it() {
        check(&[A], &[&[A], &[B], &[A]], &[0, 2]);
        check(&[A], &[&[B]], &[]);
        check(&[A], &[&[WEAK_A]], &[]);
        check(&[A, EARLY], &[&[B, EARLY]], &[]);
        check(&[DATE, EARLY], &[&[EARLY], &[LATE], &[EARLY]], &[0, 2]);
    }

    #[test]
    fn rfc9111_4_3_4_a_weak_validator_selects_the_latest() {
        check(&[WEAK_A], &[&[A], &[WEAK_A], &[B]], &[1]);
        check(&[WEAK_A], &[&[WEAK_A], &[B]], &[0]);
        check(&[WEAK_A], &[&[B]], &[]);
        // A change in the second of the response: a weak validator (RFC 9110 §8.8.2.2).
        check(&[DATE, LATE], &[&[LATE], &[LATE]], &[1]);
        check(&[DATE, LATE], &[&[EARLY]], &[]);
        check(&[EARLY], &[&[EARLY], &[EARLY]], &[1]);
    }

    #[test]
    fn rfc9111_4_3_4_without_a_validator_it_is_for_the_only_one() {
        check(&[], &[&[A]], &[0]);
        check(&[], &[&[]], &[0]);
        check(&[], &[&[A], &[B]], &[]);
        check(&[], &[], &[]);
    }

    #[test]
    fn rfc9111_4_3_2_what_a_clients_date_is_compared_with() {
        let modified = |lines: Lines<'_>| stored_with(lines).0.modified();
        assert_eq!(
            Some(modified(&[DATE, EARLY])),
            crate::http_date(EARLY.1.as_bytes())
        );
        let date = ("Date", LATE.1);
        assert_eq!(Some(modified(&[date])), crate::http_date(LATE.1.as_bytes()));
        assert_eq!(modified(&[("Last-Modified", "x")]), NOW);
    }

    struct Update<'a> {
        policy: Policy,
        request: Lines<'a>,
        method: &'a str,
    }

    fn updating() -> Update<'static> {
        Update {
            policy: Policy::default(),
            request: &[],
            method: "GET",
        }
    }

    impl Update<'_> {
        /// A 304 that comes after 100 s.
        fn run(&self, stored: Lines<'_>, new: Lines<'_>) -> (Updated, String) {
            let (facts, mut merged) = stored_with(stored);
            let new_fields = fields(new);
            let new = ResponseFacts::of(304, &new_fields, false);
            let times = Times {
                asked: after(99),
                answered: after(100),
            };
            let request = request(&self.policy, self.method, self.request);
            let policy = &self.policy;
            let updated = update(
                policy,
                &request,
                &facts,
                &mut merged,
                &new,
                &new_fields,
                &times,
            )
            .unwrap();
            (updated, text(&merged))
        }
    }

    const FRESH: (&str, &str) = ("Cache-Control", "max-age=60");
    const NEW_DATE: (&str, &str) = ("Date", "Sun, 06 Nov 1994 08:51:17 GMT");

    #[test]
    fn rfc9111_3_2_fields_are_replaced_and_added() {
        let stored = [
            DATE,
            FRESH,
            A,
            ("X-Two", "1"),
            ("X-Two", "2"),
            ("X-Old", "o"),
        ];
        let new = [NEW_DATE, ("x-two", "3"), ("X-New", "4"), ("x-TWO", "5")];
        let (_, text) = updating().run(&stored, &new);
        assert_eq!(
            text,
            format!(
                "Cache-Control: max-age=60\nETag: \"a\"\nX-Old: o\nDate: {}\n\
                 x-two: 3\nX-New: 4\nx-TWO: 5\n",
                NEW_DATE.1
            )
        );
    }

    #[test]
    fn rfc9111_3_2_fields_that_must_not_change() {
        let stored = [
            NEW_DATE,
            FRESH,
            A,
            ("Content-Length", "5"),
            ("Content-Type", "text/css"),
            ("Content-Encoding", "br"),
        ];
        let new = [
            WEAK_A,
            ("Content-Length", "0"),
            ("Content-Type", "text/html"),
            ("Content-Encoding", "gzip"),
            ("Content-Range", "bytes 0-1/5"),
            ("Connection", "X-Hop"),
            ("X-Hop", "1"),
            ("Age", "1"),
            ("Set-Cookie", "a=b"),
            ("X-Private", "1"),
            ("Cache-Control", "max-age=9, private=x-private"),
        ];
        let before = text(&fields(&[
            NEW_DATE, stored[2], stored[3], stored[4], stored[5],
        ]));
        let (_, after) = updating().run(&stored, &new);
        let date = before.lines().next().unwrap();
        for line in before.lines() {
            assert!(after.contains(line), "{line}: {after}");
        }
        assert!(after.ends_with(&format!(
            "Cache-Control: max-age=9, private=x-private\n{date}\n"
        )));
        assert_eq!(after.lines().count(), 6);
    }

    #[test]
    fn rfc9111_4_3_4_freshness_and_age_begin_anew() {
        let (updated, _) = updating().run(&[DATE, FRESH, A, ("Age", "50")], &[NEW_DATE, A]);
        let Updated::Stored { facts, vary: None } = updated else {
            panic!("{updated:?}");
        };
        // A second on the way.
        assert_eq!((facts.age(after(100)), facts.lifetime()), (1, 60));
        let longer = [NEW_DATE, ("Cache-Control", "s-maxage=90"), ("Age", "10")];
        let (updated, _) = updating().run(&[DATE, FRESH, A], &longer);
        let Updated::Stored { facts, .. } = updated else {
            panic!("{updated:?}");
        };
        assert_eq!((facts.age(after(100)), facts.lifetime()), (11, 90));
        assert_eq!(facts.lifetime_by(), LifetimeBy::SMaxAge);
        // Without a Date the time of receipt is one.
        let (_, text) = updating().run(&[DATE, FRESH, A], &[]);
        assert!(text.contains(NEW_DATE.1), "{text}");
    }

    #[test]
    fn rfc9111_3_what_may_not_be_stored_any_more_is_dropped() {
        let (updated, _) = updating().run(&[FRESH, A], &[("Cache-Control", "no-store")]);
        assert_eq!(updated, Updated::Dropped(WhyNot::NoStore));
        let (updated, _) = updating().run(&[FRESH, A], &[("Vary", "*")]);
        assert_eq!(updated, Updated::Dropped(WhyNot::VaryStar));
    }

    #[test]
    fn what_a_request_may_not_leave_behind_changes_nothing() {
        for (line, why) in [
            (("Cache-Control", "no-store"), WhyNot::RequestNoStore),
            (("Authorization", "Basic eA=="), WhyNot::Authorization),
        ] {
            let asked = Update {
                request: &[line],
                ..updating()
            };
            assert_eq!(asked.run(&[FRESH, A], &[A]).0, Updated::Left(why));
        }
    }

    #[test]
    fn rfc9111_4_1_another_vary_is_reported() {
        let vary = |updated| match updated {
            Updated::Stored { vary, .. } => vary,
            other => panic!("{other:?}"),
        };
        let (updated, _) = updating().run(&[FRESH, A, ("Vary", "b, a")], &[("Vary", "A,B")]);
        assert_eq!(vary(updated), None);
        let (updated, _) = updating().run(&[FRESH, A, ("Vary", "a")], &[("Vary", "b")]);
        assert!(matches!(vary(updated), Some(Vary::Names(_))));
    }

    #[test]
    fn rfc9110_8_8_an_entity_tag_is_added_only_to_what_is_surely_the_same() {
        let has_tag = |stored, new| updating().run(stored, new).1.contains("ETag");
        assert!(has_tag(&[DATE, FRESH, EARLY], &[A, EARLY]));
        assert!(!has_tag(&[DATE, FRESH, LATE], &[A, LATE]));
        assert!(!has_tag(&[DATE, FRESH, EARLY], &[A]));
    }

    #[test]
    fn rfc9111_4_3_5_head_updates_what_it_is_about() {
        let stored = fields(&[A, EARLY, ("Content-Length", "5")]);
        let matches = |head: Lines<'_>| head_matches(&stored, Some(5), &fields(head));
        for same in [
            &[][..],
            &[A],
            &[A, EARLY, ("Content-Length", "5")],
            &[("X-New", "1"), EARLY],
        ] {
            assert!(matches(same), "{same:?}");
        }
        for other in [
            &[B][..],
            &[WEAK_A],
            &[A, LATE],
            &[A, ("Content-Length", "6")],
            &[A, ("Content-Length", "x")],
        ] {
            assert!(!matches(other), "{other:?}");
        }
        assert!(!head_matches(
            &stored,
            None,
            &fields(&[("Content-Length", "5")])
        ));
        let head = Update {
            method: "HEAD",
            ..updating()
        };
        let (updated, _) = head.run(&[DATE, FRESH, A], &[NEW_DATE, A]);
        assert!(matches!(updated, Updated::Stored { .. }));
        let (stored, _) = stored_with(&[DATE, FRESH]);
        assert!(
            !stored
                .stale_from(Time::from_secs(NOW))
                .is_fresh(Time::from_secs(NOW))
        );
    }
}
