//! Changes of fields, compiled: for `headers` and whatever else has a table of fields.

use forebay_config::{Call, Code, Edit as Written, FieldEdit, Report, Template};
use forebay_fields::{Fields, Known, KnownSet, Name};
use smallvec::SmallVec;

use crate::exchange::{Exchange, Response, expand};
use crate::explain::Notes;

/// What frames a message belongs to the protocol that carries it: a length or coding from a
/// configuration would make two messages out of one.
const FRAMING: KnownSet = KnownSet::of(&[
    Known::Connection,
    Known::ContentLength,
    Known::Http2Settings,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::Te,
    Known::Trailer,
    Known::TransferEncoding,
    Known::Upgrade,
]);

/// Changes of the fields of one head, in the order in which they are written.
pub struct Edits(Box<[Edit]>);

struct Edit {
    name: Box<str>,
    action: Action,
}

enum Action {
    /// Replaces all lines by these.
    Set(Box<[Line]>),
    Add(Line),
    Default(Line),
    Remove,
}

/// A value; one without variables costs neither time nor memory.
enum Line {
    Literal(Box<[u8]>),
    Template(Template),
}

impl Edits {
    /// Reports the fields that an option of type `Fields` may not change.
    pub fn check(call: &Call, option: &str, report: &mut Report) {
        for edit in call.find::<&[FieldEdit]>(option).unwrap_or_default() {
            if let Some(help) = refused(&edit.name, option == "request") {
                let message = format!(
                    "{}: the field `{}` cannot be changed",
                    call.name(),
                    edit.name
                );
                report.mistake(edit.place, Code::BadValue, message, help);
            }
        }
    }

    /// Those of an option of type `Fields`; none if it is not given or empty.
    pub fn new(call: &Call, option: &str) -> Option<Edits> {
        let written: &[FieldEdit] = call.find(option)?;
        let edit = |edit: &FieldEdit| Edit {
            name: edit.name.clone(),
            action: Action::new(&edit.edit),
        };
        (!written.is_empty()).then(|| Edits(written.iter().map(edit).collect()))
    }

    /// Whether one of them gives this field a value.
    pub fn sets(&self, name: &str) -> bool {
        let gives = |edit: &Edit| !matches!(edit.action, Action::Remove);
        self.0
            .iter()
            .any(|edit| edit.name.eq_ignore_ascii_case(name) && gives(edit))
    }

    /// Tells which fields are changed.
    pub fn tell(&self, notes: &mut Notes<'_>) {
        for edit in &self.0 {
            let does = match edit.action {
                Action::Set(_) => "sets",
                Action::Add(_) => "adds to",
                Action::Default(_) => "sets, if it is absent,",
                Action::Remove => "removes",
            };
            notes.add("field", format!("{does} {}", edit.name));
        }
    }

    /// Changes the response's fields, or without a response the request's.
    pub fn apply(&self, exchange: &mut Exchange, mut response: Option<&mut Response>) {
        let mut room = Vec::new();
        for edit in &self.0 {
            // Values are worked out first: they may hold what is replaced.
            let values = edit.action.values(exchange, response.as_deref(), &mut room);
            let fields = match &mut response {
                Some(response) => &mut response.fields,
                None => &mut exchange.request.fields,
            };
            edit.change(fields, &values);
        }
    }
}

impl Edit {
    fn change(&self, fields: &mut Fields, values: &[&[u8]]) {
        let name = Name::from(&*self.name);
        match (&self.action, values) {
            (Action::Remove, _) => {
                fields.remove(name);
            }
            (Action::Set(_), [value]) => {
                // A value that cannot stand in a field must not leave the one that a client sent.
                if is_blank(value) || fields.set(name, value).is_err() {
                    fields.remove(name);
                }
            }
            (Action::Set(_), values) => {
                fields.remove(name);
                append_all(fields, name, values);
            }
            (Action::Add(_), values) => append_all(fields, name, values),
            (Action::Default(_), values) => {
                if !fields.contains(name) {
                    append_all(fields, name, values);
                }
            }
        }
    }
}

fn append_all(fields: &mut Fields, name: Name<'_>, values: &[&[u8]]) {
    for value in values.iter().filter(|value| !is_blank(value)) {
        // What a variable brought and a field cannot hold is left out.
        let _ = fields.append(name, value);
    }
}

fn is_blank(value: &[u8]) -> bool {
    value.trim_ascii().is_empty()
}

type Values<'a> = SmallVec<[&'a [u8]; 2]>;

impl Action {
    fn new(written: &Written) -> Action {
        match written {
            Written::Set(lines) => Action::Set(lines.iter().map(Line::new).collect()),
            Written::Add(line) => Action::Add(Line::new(line)),
            Written::Default(line) => Action::Default(Line::new(line)),
            Written::Remove => Action::Remove,
        }
    }

    fn lines(&self) -> &[Line] {
        match self {
            Action::Set(lines) => lines,
            Action::Add(line) | Action::Default(line) => std::slice::from_ref(line),
            Action::Remove => &[],
        }
    }

    /// The values of its lines; what has variables is written into `room`.
    fn values<'a>(
        &'a self,
        exchange: &Exchange,
        response: Option<&Response>,
        room: &'a mut Vec<u8>,
    ) -> Values<'a> {
        room.clear();
        let mut ends: SmallVec<[usize; 2]> = SmallVec::new();
        for line in self.lines() {
            if let Line::Template(template) = line {
                expand(template, exchange, response, room);
                ends.push(room.len());
            }
        }
        let (mut start, mut ends) = (0, ends.into_iter());
        let room: &'a [u8] = room;
        let values = self.lines().iter().map(|line| match line {
            Line::Literal(text) => &**text,
            Line::Template(_) => {
                let end = ends.next().unwrap_or(start);
                let value = &room[start..end];
                start = end;
                value
            }
        });
        values.collect()
    }
}

impl Line {
    fn new(template: &Template) -> Line {
        match template.as_literal() {
            Some(text) => Line::Literal(text.as_bytes().into()),
            None => Line::Template(template.clone()),
        }
    }
}

/// Why a field may not be changed, if it may not.
pub fn refused(name: &str, is_request: bool) -> Option<&'static str> {
    match Known::of(name.as_bytes())? {
        Known::Host if is_request => Some("write the option `host` of `proxy`"),
        Known::Expect if is_request => Some("it is answered by the server itself"),
        known if FRAMING.contains(known) => {
            Some("it belongs to the connection, not to the message")
        }
        _ => None,
    }
}
