//! The encoders, all alike: bytes in, coded bytes appended to a buffer.
//!
//! Levels and windows are for work on the fly, next to other requests: what a page is made smaller
//! by beyond these costs several times the time (see `docs/internals/decisions.md`).
//! Windows are no longer than what pages need, because each response under way has one; and there
//! is a limit to what all of them take.

use std::cell::RefCell;
use std::io::{self, Write};

use brotli::CompressorWriter;
use brotli::enc::BrotliEncoderParams;
use flate2::{Compress, Compression, FlushCompress, Status};
use zstd::stream::raw::{CParameter, InBuffer, Operation, OutBuffer};

use crate::exchange::Coding;

const GZIP_LEVEL: u32 = 4;
const BROTLI_QUALITY: i32 = 4;
const ZSTD_LEVEL: i32 = 3;

/// The longest that gzip has: 32 KiB.
const GZIP_WINDOW_LOG: u8 = 15;

/// 256 KiB, with tables that fit it; the level's own would take twice the memory for nothing.
const ZSTD_WINDOW: [CParameter; 3] = [
    CParameter::WindowLog(18),
    CParameter::HashLog(16),
    CParameter::ChainLog(15),
];

/// 64 KiB and 256 KiB. What brotli takes for the longer one costs a page twice the time.
const BROTLI_WINDOW_LOG: i32 = 16;
const BROTLI_LONG_WINDOW_LOG: i32 = 18;

/// Room that an encoder is given at a time.
const ROOM: usize = 8 * 1024;

/// What one takes, as measured, in bytes.
const GZIP_COST: usize = 320 << 10;
const ZSTD_COST: usize = 330 << 10;
const BROTLI_COST: usize = 144 << 10;
const BROTLI_LONG_COST: usize = 1536 << 10;

/// What all under way on one worker may take: some 400 of them. Each event stream has one for as
/// long as it lasts, and there may be as many as there are connections; the others go without.
const MAX_COST: usize = 128 << 20;

/// Encoders that a worker keeps for their next use, of each kind: making one takes and clears its
/// memory.
const SPARE: usize = 4;

type Zstd = zstd::stream::raw::Encoder<'static>;

/// What a worker has of them.
#[derive(Default)]
struct Stock {
    /// What those in use take, in bytes.
    used: usize,
    gzip: Vec<Compress>,
    zstd: Vec<Zstd>,
}

thread_local! {
    /// A worker is a thread.
    static STOCK: RefCell<Stock> = RefCell::default();
}

/// One body on its way through a coding.
pub struct Encoder {
    kind: Kind,
    cost: usize,
}

enum Kind {
    Gzip(Option<Compress>),
    Zstd(Option<Zstd>),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
}

impl Kind {
    fn new(coding: Coding, is_long: bool, stock: &mut Stock) -> io::Result<Kind> {
        Ok(match coding {
            Coding::Gzip => Kind::Gzip(Some(stock.gzip.pop().unwrap_or_else(|| {
                Compress::new_gzip(Compression::new(GZIP_LEVEL), GZIP_WINDOW_LOG)
            }))),
            Coding::Zstd => Kind::Zstd(Some(match stock.zstd.pop() {
                Some(encoder) => encoder,
                None => {
                    let mut encoder = Zstd::new(ZSTD_LEVEL)?;
                    for parameter in ZSTD_WINDOW {
                        encoder.set_parameter(parameter)?;
                    }
                    encoder
                }
            })),
            Coding::Br => {
                let params = BrotliEncoderParams {
                    quality: BROTLI_QUALITY,
                    lgwin: if is_long {
                        BROTLI_LONG_WINDOW_LOG
                    } else {
                        BROTLI_WINDOW_LOG
                    },
                    ..BrotliEncoderParams::default()
                };
                let writer = CompressorWriter::with_params(Vec::new(), ROOM, &params);
                Kind::Brotli(Box::new(writer))
            }
        })
    }
}

impl Encoder {
    /// An encoder at its beginning, for a body of `len` bytes if that is known.
    ///
    /// # Errors
    /// There are too many already, or there is no memory.
    pub fn new(coding: Coding, len: Option<u64>) -> io::Result<Encoder> {
        let is_long = len.is_some_and(|len| len > 1 << BROTLI_WINDOW_LOG);
        let cost = match coding {
            Coding::Gzip => GZIP_COST,
            Coding::Zstd => ZSTD_COST,
            Coding::Br if is_long => BROTLI_LONG_COST,
            Coding::Br => BROTLI_COST,
        };
        STOCK.with_borrow_mut(|stock| {
            if stock.used + cost > MAX_COST {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            let kind = Kind::new(coding, is_long, stock)?;
            stock.used += cost;
            Ok(Encoder { kind, cost })
        })
    }

    /// Takes some of the body; what comes out of it, if anything does yet, is appended to `out`.
    pub fn write(&mut self, input: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        match &mut self.kind {
            Kind::Gzip(Some(encoder)) => gzip(encoder, input, out, FlushCompress::None),
            Kind::Zstd(Some(encoder)) => {
                let mut input = InBuffer::around(input);
                while input.pos() < input.src.len() {
                    room(out);
                    let at = out.len();
                    encoder.run(&mut input, &mut OutBuffer::around_pos(out, at))?;
                }
                Ok(())
            }
            Kind::Brotli(writer) => {
                writer.write_all(input)?;
                out.append(writer.get_mut());
                Ok(())
            }
            Kind::Gzip(None) | Kind::Zstd(None) => Err(over()),
        }
    }

    /// Appends all that has been held back, so that the other end can decode what was written.
    pub fn flush(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        match &mut self.kind {
            Kind::Gzip(Some(encoder)) => gzip(encoder, &[], out, FlushCompress::Sync),
            Kind::Zstd(Some(encoder)) => rest(out, |buffer| encoder.flush(buffer)),
            Kind::Brotli(writer) => {
                writer.flush()?;
                out.append(writer.get_mut());
                Ok(())
            }
            Kind::Gzip(None) | Kind::Zstd(None) => Err(over()),
        }
    }

    /// Appends the end.
    pub fn finish(mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let kind = std::mem::replace(&mut self.kind, Kind::Gzip(None));
        match kind {
            Kind::Gzip(Some(mut encoder)) => {
                gzip(&mut encoder, &[], out, FlushCompress::Finish)?;
                keep(Kind::Gzip(Some(encoder)));
                Ok(())
            }
            Kind::Zstd(Some(mut encoder)) => {
                rest(out, |buffer| encoder.finish(buffer, true))?;
                keep(Kind::Zstd(Some(encoder)));
                Ok(())
            }
            Kind::Brotli(writer) => {
                out.append(&mut writer.into_inner());
                Ok(())
            }
            Kind::Gzip(None) | Kind::Zstd(None) => Err(over()),
        }
    }
}

/// A body that was broken off leaves its encoder behind, too.
impl Drop for Encoder {
    fn drop(&mut self) {
        keep(std::mem::replace(&mut self.kind, Kind::Gzip(None)));
        let cost = self.cost;
        let _ = STOCK.try_with(|stock| stock.borrow_mut().used -= cost);
    }
}

/// Keeps an encoder for its next use.
fn keep(kind: Kind) {
    // At the end of the thread there is nothing left to keep it in.
    let _ = STOCK.try_with(|stock| {
        let mut spare = stock.borrow_mut();
        match kind {
            Kind::Gzip(Some(mut encoder)) if spare.gzip.len() < SPARE => {
                encoder.reset();
                spare.gzip.push(encoder);
            }
            Kind::Zstd(Some(encoder)) if spare.zstd.len() < SPARE => {
                spare.zstd.extend(begun_anew(encoder));
            }
            _ => {}
        }
    });
}

fn begun_anew(mut encoder: Zstd) -> Option<Zstd> {
    encoder.reinit().ok().map(|()| encoder)
}

fn over() -> io::Error {
    io::Error::other("the body is over")
}

fn room(out: &mut Vec<u8>) {
    if out.capacity() - out.len() < ROOM {
        out.reserve(ROOM);
    }
}

fn gzip(
    encoder: &mut Compress,
    mut input: &[u8],
    out: &mut Vec<u8>,
    flush: FlushCompress,
) -> io::Result<()> {
    loop {
        room(out);
        let before = encoder.total_in();
        let status = encoder.compress_vec(input, out, flush)?;
        let taken = usize::try_from(encoder.total_in() - before).unwrap_or(input.len());
        input = input.get(taken..).unwrap_or_default();
        // Room that is left means that nothing is held back for want of it.
        let is_done = match flush {
            FlushCompress::Finish => status == Status::StreamEnd,
            _ => input.is_empty() && out.len() < out.capacity(),
        };
        if is_done {
            return Ok(());
        }
    }
}

/// Asks zstd for more until it says that nothing is left.
fn rest(
    out: &mut Vec<u8>,
    mut ask: impl FnMut(&mut OutBuffer<'_, Vec<u8>>) -> io::Result<usize>,
) -> io::Result<()> {
    loop {
        room(out);
        let at = out.len();
        if ask(&mut OutBuffer::around_pos(out, at))? == 0 {
            return Ok(());
        }
    }
}
