//! Whole bodies that are kept: coded once, off the workers, as small as is worth the time.

use std::io::{self, Write};

use brotli::CompressorWriter;
use brotli::enc::BrotliEncoderParams;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::exchange::Coding;

/// What a page gains beyond these is less than a percent, for many times the work.
const GZIP_LEVEL: u32 = 9;
const BROTLI_QUALITY: i32 = 9;
const ZSTD_LEVEL: i32 = 15;

/// 4 MiB, and no more than a client has to have room for (RFC 9659 §3 allows 8 MiB).
const WINDOW_LOG: u32 = 22;

/// Puts the body into a coding.
pub fn code_all(coding: Coding, pieces: &[Bytes]) -> io::Result<Vec<u8>> {
    match coding {
        Coding::Gzip => {
            let writer = GzEncoder::new(Vec::new(), Compression::new(GZIP_LEVEL));
            all_into(writer, pieces)?.finish()
        }
        Coding::Zstd => {
            let mut writer = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
            let len: usize = pieces.iter().map(Bytes::len).sum();
            writer.set_pledged_src_size(Some(len as u64))?;
            writer.window_log(WINDOW_LOG)?;
            all_into(writer, pieces)?.finish()
        }
        Coding::Br => {
            let params = BrotliEncoderParams {
                quality: BROTLI_QUALITY,
                lgwin: i32::try_from(WINDOW_LOG).unwrap_or(22),
                ..BrotliEncoderParams::default()
            };
            let writer = CompressorWriter::with_params(Vec::new(), 64 * 1024, &params);
            Ok(all_into(writer, pieces)?.into_inner())
        }
    }
}

fn all_into<W: Write>(mut writer: W, pieces: &[Bytes]) -> io::Result<W> {
    for piece in pieces {
        writer.write_all(piece)?;
    }
    Ok(writer)
}
