//! Captures of a network: TCP connections put together again, and which of them speak FastCGI.
//!
//! A connection is FastCGI if a side's first bytes are the header of a record that web servers
//! begin with; that side is the web server. Everything else in a capture is left alone.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Cursor, Read};
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use forebay_fastcgi::{HEADER_LEN, Header, RecordType};
use pcap_parser::traits::PcapNGPacketBlock;
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};

use crate::trace::{Frame, Passed, Time, Who, read_full};

/// Connections that are followed at once.
const MAX_FLOWS: usize = 4096;
/// Interfaces of one section.
const MAX_LINKS: usize = 1024;
/// Of one direction, what came before what is missing.
const MAX_AHEAD: usize = 1 << 20;
/// The same, in segments: each time all of them are looked through.
const MAX_SEGMENTS: usize = 4096;
/// The longest packet of a capture, and room for what stands around it.
const BUFFER: usize = 1 << 20;
/// The header of a capture of the old format.
const PCAP_HEADER: u32 = 24;
/// Of the new format, what says how long the first block is, and in which order its bytes are.
const PCAPNG_START: usize = 12;
/// tcpdump's cooked headers, of their second version, which `-i any` makes.
const SLL2: i32 = 276;
const SLL2_LEN: usize = 20;
/// Numbers of bytes behind this are those before 0.
const HALF: u32 = 1 << 31;

/// The connections of a capture.
#[derive(Default)]
pub struct Flows {
    /// By both ends, the lower one first.
    flows: HashMap<(SocketAddr, SocketAddr), Flow>,
    /// FastCGI connections so far.
    count: u32,
    /// Only connections to this port.
    port: Option<u16>,
    /// When the last packet passed.
    last: Time,
    dropped: bool,
}

#[derive(Default)]
struct Flow {
    /// What each side has sent; the lower end's first.
    sides: [Stream; 2],
    /// Its number, and which side is the web server; once that is known.
    known: Option<(u32, usize)>,
    /// Not FastCGI.
    ignored: bool,
}

/// One direction of a connection.
#[derive(Default)]
struct Stream {
    /// The number of the byte that comes next.
    next: Option<u32>,
    /// What came too early, by the distance from `next` when it came.
    ahead: BTreeMap<u32, Bytes>,
    ahead_len: usize,
    /// Where it ends.
    fin: bool,
    lost: bool,
}

struct Segment<'p> {
    from: SocketAddr,
    to: SocketAddr,
    number: u32,
    syn: bool,
    fin: bool,
    rst: bool,
    data: &'p [u8],
}

/// Reads a capture to its end and tells what passed; `start` is what was read of it already.
///
/// # Errors
/// It is no capture, or it is damaged; in a sentence.
pub fn read(
    start: Vec<u8>,
    mut from: impl Read + Send + 'static,
    port: Option<u16>,
    tell: &mut dyn FnMut(Frame),
) -> Result<(), String> {
    let start = header(start, &mut from).map_err(|error| error.to_string())?;
    let from = Cursor::new(start).chain(from);
    let mut reader = create_reader(BUFFER, from).map_err(|error| plain(&error))?;
    let mut capture = Capture::default();
    capture.flows.port = port;
    let result = loop {
        match reader.next() {
            Ok((len, block)) => {
                capture.block(&block, tell);
                reader.consume(len);
                continue;
            }
            Err(PcapError::Eof) => break Ok(()),
            // It wants more bytes.
            Err(PcapError::Incomplete(_)) => {}
            Err(error) => break Err(plain(&error)),
        }
        if reader.reader_exhausted() {
            break Err("the capture ends in the middle of a packet".to_owned());
        }
        if let Err(error) = reader.refill() {
            break Err(plain(&error));
        }
    };
    capture.flows.finish(tell);
    match (result, capture.flows.count) {
        (Ok(()), 0) => Err(
            "there is no FastCGI in this capture: a connection is only understood \
                            from its beginning"
                .to_owned(),
        ),
        (result, _) => result,
    }
}

/// A capture, in the middle of it.
#[derive(Default)]
struct Capture {
    flows: Flows,
    /// One for each interface of a section; of an old capture only one.
    links: Vec<Link>,
    /// Times are in nanoseconds.
    nanos: bool,
}

impl Capture {
    fn block(&mut self, block: &PcapBlockOwned<'_>, tell: &mut dyn FnMut(Frame)) {
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                self.nanos = header.is_nanosecond_precision();
                self.links = vec![Link::new(header.network, 0, 6)];
            }
            PcapBlockOwned::Legacy(packet) => {
                let parts = if self.nanos { 1000 } else { 1 };
                let us = u64::from(packet.ts_usec) / parts;
                let time = u64::from(packet.ts_sec) * 1_000_000 + us;
                if let Some(link) = self.links.first() {
                    self.flows.packet(time, link.kind, packet.data, tell);
                }
            }
            PcapBlockOwned::NG(Block::SectionHeader(_)) => self.links.clear(),
            PcapBlockOwned::NG(Block::InterfaceDescription(one)) => {
                if self.links.len() < MAX_LINKS {
                    let link = Link::new(one.linktype, one.if_tsoffset, one.if_tsresol);
                    self.links.push(link);
                }
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                let index = usize::try_from(packet.if_id).unwrap_or(usize::MAX);
                if let Some(link) = self.links.get(index) {
                    let ticks = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                    let data = packet.packet_data();
                    self.flows.packet(link.time(ticks), link.kind, data, tell);
                }
            }
            PcapBlockOwned::NG(_) => {}
        }
    }
}

/// What stands in front of the packets, as a whole: the reader asks for it once, and from a pipe it
/// may come in pieces. Later it asks until it has what it needs.
fn header(mut start: Vec<u8>, from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut more = |start: &mut Vec<u8>, len: usize| {
        let had = start.len();
        start.resize(len.max(had), 0);
        let read = read_full(from, start.get_mut(had..).unwrap_or_default())?;
        start.truncate(had + read);
        io::Result::Ok(())
    };
    more(&mut start, PCAPNG_START)?;
    let len = match start.as_slice() {
        [0x0a, 0x0d, 0x0d, 0x0a, l0, l1, l2, l3, order, ..] => {
            let len = [*l0, *l1, *l2, *l3];
            match order {
                0x1a => u32::from_be_bytes(len),
                _ => u32::from_le_bytes(len),
            }
        }
        _ => PCAP_HEADER,
    };
    let len = usize::try_from(len).unwrap_or(usize::MAX).min(BUFFER);
    more(&mut start, len)?;
    Ok(start)
}

fn plain<I>(error: &PcapError<I>) -> String {
    match error {
        PcapError::HeaderNotRecognized => {
            "expected a capture as tcpdump, Wireshark or --write make it".to_owned()
        }
        PcapError::ReadError => "it cannot be read".to_owned(),
        PcapError::Incomplete(_) | PcapError::UnexpectedEof | PcapError::Eof => {
            "the capture ends in the middle of a packet".to_owned()
        }
        _ => "the capture is damaged".to_owned(),
    }
}

/// What an interface's packets begin with, and how it counts time.
struct Link {
    kind: Linktype,
    offset: i64,
    resolution: u8,
}

impl Link {
    fn new(kind: Linktype, offset: i64, resolution: u8) -> Self {
        Self {
            kind,
            offset,
            resolution,
        }
    }

    /// Microseconds since 1970.
    fn time(&self, ticks: u64) -> Time {
        // The highest bit says that the others are a power of two, else of ten.
        let power = u32::from(self.resolution & 0x7f);
        let base: u128 = if self.resolution & 0x80 == 0 { 10 } else { 2 };
        let per_second = base.checked_pow(power).unwrap_or(u128::MAX);
        let us = u128::from(ticks) * 1_000_000 / per_second;
        let offset = self.offset.saturating_mul(1_000_000);
        u64::try_from(us)
            .unwrap_or(u64::MAX)
            .saturating_add_signed(offset)
    }
}

impl Flows {
    fn packet(&mut self, time: Time, link: Linktype, data: &[u8], tell: &mut dyn FnMut(Frame)) {
        self.last = time;
        if let Some(segment) = Segment::read(link, data) {
            self.segment(time, &segment, tell);
        }
    }

    fn segment(&mut self, time: Time, segment: &Segment<'_>, tell: &mut dyn FnMut(Frame)) {
        let ports = [segment.from.port(), segment.to.port()];
        if self.port.is_some_and(|port| !ports.contains(&port)) {
            return;
        }
        let lower = segment.from < segment.to;
        let key = match lower {
            true => (segment.from, segment.to),
            false => (segment.to, segment.from),
        };
        let side = usize::from(!lower);
        if !self.flows.contains_key(&key) {
            if self.flows.len() >= MAX_FLOWS {
                self.flows.retain(|_, flow| !flow.ignored);
            }
            if self.flows.len() >= MAX_FLOWS {
                if !std::mem::replace(&mut self.dropped, true) {
                    eprintln!(
                        "forebay: the capture has more than {MAX_FLOWS} connections at once: \
                         some are not shown; --port leaves others out"
                    );
                }
                return;
            }
        }
        let flow = self.flows.entry(key).or_default();
        if segment.syn {
            // The ports are used again: what was before is over.
            if flow
                .sides
                .get(side)
                .is_some_and(|stream| stream.next.is_some())
            {
                flow.close(time, tell);
                *flow = Flow::default();
            }
            if let Some(stream) = flow.sides.get_mut(side) {
                stream.next = Some(segment.number.wrapping_add(1));
            }
        }
        let count = &mut self.count;
        flow.data(time, side, segment, count, tell);
        let over = segment.rst || flow.sides.iter().all(|stream| stream.fin);
        if let Some(mut flow) = over.then(|| self.flows.remove(&key)).flatten() {
            flow.close(time, tell);
        }
    }

    fn finish(&mut self, tell: &mut dyn FnMut(Frame)) {
        let mut ended: Vec<_> = self.flows.values_mut().collect();
        ended.sort_by_key(|flow| flow.known);
        for flow in ended {
            flow.missing(self.last, tell);
        }
    }
}

impl Flow {
    fn data(
        &mut self,
        time: Time,
        side: usize,
        segment: &Segment<'_>,
        count: &mut u32,
        tell: &mut dyn FnMut(Frame),
    ) {
        if self.ignored {
            return;
        }
        let Some(stream) = self.sides.get_mut(side) else {
            return;
        };
        let ready = stream.take(segment);
        let lost = stream.lost;
        for data in ready {
            if self.known.is_none() {
                if !is_begin(&data) {
                    self.ignored = true;
                    return;
                }
                *count += 1;
                self.known = Some((*count, side));
                let between = format!("{} to {}", segment.from, segment.to);
                self.tell(time, Passed::Opened(between), tell);
            }
            let who = self.who(side);
            self.tell(time, Passed::Bytes(who, data), tell);
        }
        if lost && self.known.is_some() {
            self.missing(time, tell);
        }
    }

    fn who(&self, side: usize) -> Who {
        match self.known {
            Some((_, server)) if server == side => Who::Server,
            _ => Who::Application,
        }
    }

    fn missing(&mut self, time: Time, tell: &mut dyn FnMut(Frame)) {
        let missing = self
            .sides
            .iter()
            .any(|stream| stream.lost || stream.ahead_len > 0);
        if missing && self.known.is_some() {
            self.ignored = true;
            let why = "packets are missing in the capture".to_owned();
            self.tell(time, Passed::Gap(why), tell);
        }
    }

    fn close(&mut self, time: Time, tell: &mut dyn FnMut(Frame)) {
        self.missing(time, tell);
        if self.known.is_some() {
            self.tell(time, Passed::Closed, tell);
        }
    }

    fn tell(&self, time: Time, what: Passed, tell: &mut dyn FnMut(Frame)) {
        if let Some((connection, _)) = self.known {
            tell(Frame {
                time,
                connection,
                what,
            });
        }
    }
}

impl Stream {
    /// What can be read now, in order.
    fn take(&mut self, segment: &Segment<'_>) -> Vec<Bytes> {
        let mut ready = Vec::new();
        if self.lost {
            return ready;
        }
        let first = match segment.syn {
            true => segment.number.wrapping_add(1),
            false => segment.number,
        };
        let mut next = *self.next.get_or_insert(first);
        let distance = first.wrapping_sub(next);
        if distance == 0 || distance >= HALF {
            // What came already is left out.
            let old = usize::try_from(next.wrapping_sub(first)).unwrap_or(usize::MAX);
            if let Some(new) = segment.data.get(old..).filter(|new| !new.is_empty()) {
                next = advance(next, new.len());
                ready.push(Bytes::copy_from_slice(new));
            }
            // A FIN has a number of its own, behind the data.
            self.fin |= segment.fin;
        } else if !segment.data.is_empty() {
            self.ahead_len += segment.data.len();
            self.ahead
                .insert(first, Bytes::copy_from_slice(segment.data));
            self.lost = self.ahead_len > MAX_AHEAD || self.ahead.len() > MAX_SEGMENTS;
        }
        self.next = Some(next);
        self.catch_up(&mut ready);
        ready
    }

    /// What had come too early and now has its turn.
    fn catch_up(&mut self, ready: &mut Vec<Bytes>) {
        loop {
            let next = self.next.unwrap_or_default();
            let due = self.ahead.iter().find_map(|(&number, _)| {
                let distance = number.wrapping_sub(next);
                (distance == 0 || distance >= HALF).then_some(number)
            });
            let Some((number, mut data)) = due.and_then(|due| self.ahead.remove_entry(&due)) else {
                return;
            };
            self.ahead_len -= data.len();
            let old = usize::try_from(next.wrapping_sub(number)).unwrap_or(usize::MAX);
            if old < data.len() {
                let data = data.split_off(old);
                self.next = Some(advance(next, data.len()));
                ready.push(data);
            }
        }
    }
}

/// The number `len` bytes behind this one. A segment is less than 64 KiB, so nothing is cut.
fn advance(number: u32, len: usize) -> u32 {
    number.wrapping_add(u32::try_from(len).unwrap_or(u32::MAX))
}

/// Whether bytes begin as a web server begins.
fn is_begin(data: &[u8]) -> bool {
    let Some(&header) = data.first_chunk::<HEADER_LEN>() else {
        return false;
    };
    Header::read(header).is_ok_and(|header| match RecordType::of(header.kind) {
        Some(RecordType::BeginRequest) => header.content == 8 && header.id != 0,
        Some(RecordType::GetValues) => header.id == 0,
        _ => false,
    })
}

impl<'p> Segment<'p> {
    fn read(link: Linktype, data: &'p [u8]) -> Option<Self> {
        let packet = match link {
            Linktype::ETHERNET => LaxSlicedPacket::from_ethernet(data).ok()?,
            Linktype::LINUX_SLL => ip(data.get(16..)?)?,
            Linktype(SLL2) => ip(data.get(SLL2_LEN..)?)?,
            // A number of the address family in four bytes.
            Linktype::NULL | Linktype(108) => ip(data.get(4..)?)?,
            Linktype::RAW | Linktype(12 | 228 | 229) => ip(data)?,
            _ => return None,
        };
        let (from, to): (IpAddr, IpAddr) = match &packet.net {
            Some(LaxNetSlice::Ipv4(ip)) => {
                let header = ip.header();
                (
                    header.source_addr().into(),
                    header.destination_addr().into(),
                )
            }
            Some(LaxNetSlice::Ipv6(ip)) => {
                let header = ip.header();
                (
                    header.source_addr().into(),
                    header.destination_addr().into(),
                )
            }
            _ => return None,
        };
        let Some(TransportSlice::Tcp(tcp)) = packet.transport else {
            return None;
        };
        Some(Self {
            from: SocketAddr::new(from, tcp.source_port()),
            to: SocketAddr::new(to, tcp.destination_port()),
            number: tcp.sequence_number(),
            syn: tcp.syn(),
            fin: tcp.fin(),
            rst: tcp.rst(),
            data: tcp.payload(),
        })
    }
}

fn ip(data: &[u8]) -> Option<LaxSlicedPacket<'_>> {
    LaxSlicedPacket::from_ip(data).ok()
}
