//! Bodies, rule by rule. Each input is fed whole, cut at every place and byte by byte.

use bytes::{Buf, BytesMut};
use forebay_http1::{
    BodyDecoder, BodyError, Framing, HeadError, Limits, MAX_CHUNK_EXTENSION, Part, Step,
};

use crate::common::{Body, body_in, every_split, some_splits};

use BodyError::{
    BadChunkEnd, BadChunkExtension, BadChunkSize, BadTrailers, ChunkTooLarge, TooMuchFraming,
};

/// `Ok("data|trailers|rest")`, or `Ok("data")` for a body that has not ended.
#[track_caller]
fn check(framing: Framing, input: &[u8], expected: Result<&str, BodyError>) {
    let found = every_split(input, |pieces| body_in(pieces, framing, &Limits::default()));
    let Body {
        data,
        end,
        trailers,
        rest,
    } = found;
    let found = end.map(|ended| match ended {
        true => format!(
            "{}|{}|{}",
            data.escape_ascii(),
            trailers,
            rest.escape_ascii()
        ),
        false => data.escape_ascii().to_string(),
    });
    assert_eq!(
        found,
        expected.map(str::to_owned),
        "{}",
        input.escape_ascii()
    );
}

#[track_caller]
fn chunked(input: &str, expected: Result<&str, BodyError>) {
    check(Framing::Chunked, input.as_bytes(), expected);
}

#[test]
fn rfc9112_6_2_length() {
    check(Framing::Length(5), b"hello", Ok("hello||"));
    check(Framing::Length(5), b"hello world", Ok("hello|| world"));
    check(Framing::Length(5), b"hell", Ok("hell"));
    check(Framing::Length(0), b"x", Ok("||x"));
    check(Framing::None, b"x", Ok("||x"));
    check(Framing::Length(u64::MAX), b"hello", Ok("hello"));
}

#[test]
fn rfc9112_6_3_until_close() {
    check(Framing::UntilClose, b"hello", Ok("hello"));
    let mut decoder = BodyDecoder::new(Framing::UntilClose, &Limits::default());
    assert_eq!(decoder.finish(), Ok(()));
    assert!(decoder.is_done());
}

#[test]
fn rfc9112_8_incomplete_messages() {
    for (framing, input) in [
        (Framing::Length(5), "hell"),
        (Framing::Length(5), ""),
        (Framing::Chunked, ""),
        (Framing::Chunked, "5\r\nhello\r\n"),
        (Framing::Chunked, "5\r\nhello\r\n0\r\n"),
        (Framing::Chunked, "0\r\nA: b\r\n"),
        (Framing::Chunked, "0\r\n\r"),
    ] {
        let mut decoder = BodyDecoder::new(framing, &Limits::default());
        let mut buf = BytesMut::from(input.as_bytes());
        while let Ok(Part::Data(_)) = decoder.decode(&mut buf) {}
        assert_eq!(decoder.finish(), Err(BodyError::Truncated), "{input:?}");
    }
}

#[test]
fn rfc9112_7_1_chunks() {
    chunked("0\r\n\r\n", Ok("||"));
    chunked("5\r\nhello\r\n0\r\n\r\n", Ok("hello||"));
    chunked(
        "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\nGET",
        Ok("hello world||GET"),
    );
    chunked("0A\r\n0123456789\r\n00\r\n\r\n", Ok("0123456789||"));
    chunked(
        "a\r\n0123456789\r\n0000000000000000\r\n\r\n",
        Ok("0123456789||"),
    );
    chunked("2\r\n\r\n\r\n0\r\n\r\n", Ok("\\r\\n||"));
    chunked("5\r\nhel", Ok("hel"));
}

#[test]
fn rfc9112_7_1_bad_sizes() {
    for bad in [
        "\r\n",
        "x\r\n",
        "0x5\r\n",
        "-1\r\n",
        "+5\r\n",
        " 5\r\n",
        "5 \r\n",
        "5\t\r\n",
        "5g\r\n",
        "5\n",
        "5\nhello",
        "5\r\rhello",
        "5\rhello",
        "\n",
        "5,\r\n",
        "5.0\r\n",
        "\u{0}5\r\n",
        "5\u{0}\r\n",
        "5 5\r\n",
        "\u{ff15}\r\n",
    ] {
        chunked(bad, Err(BadChunkSize));
    }
    chunked("00000000000000005\r\n", Err(ChunkTooLarge));
    chunked("10000000000000000\r\n", Err(ChunkTooLarge));
    chunked("ffffffffffffffff\r\n", Err(ChunkTooLarge));
    chunked("8000000000000000\r\n", Err(ChunkTooLarge));
    chunked("7fffffffffffffff\r\nhi", Ok("hi"));
}

#[test]
fn rfc9112_7_1_all_chunks_together_stay_below_2_63() {
    chunked("1\r\nx\r\n7ffffffffffffffe\r\nhi", Ok("xhi"));
    chunked("1\r\nx\r\n7fffffffffffffff\r\nhi", Err(ChunkTooLarge));
}

#[test]
fn rfc9112_7_1_end_of_a_chunk() {
    for bad in [
        "5\r\nhelloX",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r0",
        "5\r\nhello\r\r\n",
        "1\r\nhello",
    ] {
        chunked(bad, Err(BadChunkEnd));
    }
}

#[test]
fn rfc9112_7_1_1_extensions() {
    chunked("1;a\r\nx\r\n0;b=c;d=\"e;f\"\r\n\r\n", Ok("x||"));
    chunked("1 \t; a = b\r\nx\r\n0\r\n\r\n", Ok("x||"));
    chunked("1;\r\nx\r\n0\r\n\r\n", Ok("x||"));
    chunked("1;\u{e9}\r\nx\r\n0\r\n\r\n", Ok("x||"));
    for bad in [
        "1;a\nx",
        "1;a\rx",
        "1;\u{0}\r\n",
        "1;a\u{1}\r\n",
        "1;a\u{7f}\r\n",
        "1;a\r\rx",
    ] {
        let expected = if bad.contains('\r') && !bad.contains(['\u{0}', '\u{1}', '\u{7f}']) {
            BadChunkSize
        } else {
            BadChunkExtension
        };
        chunked(bad, Err(expected));
    }
    chunked("1 a\r\n", Err(BadChunkSize));
    let most = usize::from(MAX_CHUNK_EXTENSION);
    chunked(
        &format!("1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(most - 1)),
        Ok("x||"),
    );
    chunked(
        &format!("1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(most)),
        Err(BadChunkExtension),
    );
    chunked(
        &format!("1{}\r\nx\r\n0\r\n\r\n", " ".repeat(most + 1)),
        Err(BadChunkExtension),
    );
}

#[test]
fn framing_that_outweighs_the_data_is_stopped() {
    let run = |input: &str| {
        some_splits(input.as_bytes(), |pieces| {
            body_in(pieces, Framing::Chunked, &Limits::default()).end
        })
    };
    // Honest streams of the smallest chunks are not.
    assert_eq!(run(&("1\r\nx\r\n".repeat(100_000) + "0\r\n\r\n")), Ok(true));
    assert_eq!(
        run(&("0000000000000001\r\nx\r\n".repeat(20_000) + "0\r\n\r\n")),
        Ok(true)
    );
    let padded = format!("1;{}\r\nx\r\n", "a".repeat(200));
    assert_eq!(run(&(padded.repeat(50) + "0\r\n\r\n")), Ok(true));
    assert_eq!(run(&padded.repeat(200)), Err(TooMuchFraming));
    // Signed chunks, as some clients of object stores send them, are paid for by their data.
    let signed = format!(
        "1000;chunk-signature={}\r\n{}\r\n",
        "a".repeat(64),
        "x".repeat(4096)
    );
    assert_eq!(run(&(signed.repeat(300) + "0\r\n\r\n")), Ok(true));
}

#[test]
fn rfc9112_7_1_2_trailers() {
    chunked(
        "0\r\nX-Sum: 1\r\nETag: \"a\"\r\n\r\nGET",
        Ok("|X-Sum: 1\nETag: \\\"a\\\"\n|GET"),
    );
    chunked("1\r\nx\r\n0\r\nA:\r\n\r\n", Ok("x|A: \n|"));
    for (bad, fault) in [
        ("A\r\n", HeadError::BadFieldName),
        ("A: b\n\r\n", HeadError::BareLf),
        ("\n", HeadError::BareLf),
        ("\r\r", HeadError::BareCr),
        ("A : b\r\n", HeadError::SpaceBeforeColon),
        (" A: b\r\n", HeadError::ObsFold),
        ("A: b\r\n c\r\n", HeadError::ObsFold),
        ("A: b\u{0}\r\n", HeadError::Nul),
        ("A: b\r\n\rX", HeadError::BareCr),
    ] {
        chunked(&format!("0\r\n{bad}"), Err(BadTrailers(fault)));
    }
}

#[test]
fn rfc9110_6_5_1_fields_that_no_trailer_may_have() {
    chunked(
        "0\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nAuthorization: x\r\n\
         Cookie: a=b\r\nX-Sum: 1\r\nX-Forwarded-For: 1.2.3.4\r\nCache-Control: no-store\r\n\
         Connection: close\r\nTrailer: a\r\nX_Y: z\r\nContent-Type: a\r\nSet-Cookie: a=b\r\n\r\n",
        Ok("|X-Sum: 1\n|"),
    );
    chunked("0\r\nHost: a\r\n\r\n", Ok("||"));
}

#[test]
fn rfc6585_5_limits_of_trailers() {
    let limits = Limits {
        max_request_line: 10,
        max_header: 30,
        max_fields: 2,
    };
    let run = |input: &str| {
        every_split(input.as_bytes(), |pieces| {
            body_in(pieces, Framing::Chunked, &limits).end
        })
    };
    assert_eq!(run("0\r\nA: b\r\nA: b\r\n\r\n"), Ok(true));
    let many = run("0\r\nA: b\r\nA: b\r\nA: b\r\n\r\n");
    assert_eq!(many, Err(BadTrailers(HeadError::TooManyFields)));
    assert_eq!(many.unwrap_err().status(), 431);
    let long = run("0\r\nA: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n\r\n");
    assert_eq!(long, Err(BadTrailers(HeadError::HeadTooLarge)));
}

#[test]
fn data_can_be_passed_on_in_place() {
    let mut decoder = BodyDecoder::new(Framing::Chunked, &Limits::default());
    let mut buf = BytesMut::from(b"5\r\nhello\r\n3\r\nabc".as_slice());
    assert_eq!(decoder.ready(&buf), 0);
    assert_eq!(decoder.poll(&mut buf), Ok(Step::Data(5)));
    buf.advance(2);
    decoder.consumed(2);
    assert_eq!(decoder.ready(&buf), 3);
    assert_eq!(decoder.poll(&mut buf), Ok(Step::Data(3)));
    buf.advance(3);
    decoder.consumed(3);
    assert_eq!(decoder.poll(&mut buf), Ok(Step::Data(3)));
    buf.advance(3);
    decoder.consumed(3);
    assert_eq!(decoder.poll(&mut buf), Ok(Step::NeedMore));
    buf.extend_from_slice(b"\r\n0\r\n\r\n");
    assert_eq!(decoder.poll(&mut buf), Ok(Step::End));

    let mut decoder = BodyDecoder::new(Framing::Length(3), &Limits::default());
    assert_eq!(decoder.ready(b"abcdef"), 3);
    assert_eq!(decoder.remaining(), Some(3));
    decoder.consumed(3);
    assert!(decoder.is_done());
    assert_eq!(decoder.ready(b"abcdef"), 0);
}

#[test]
fn errors_have_names_and_sentences() {
    for error in [
        BadChunkSize,
        ChunkTooLarge,
        BadChunkExtension,
        BadChunkEnd,
        TooMuchFraming,
        BadTrailers(HeadError::Nul),
        BodyError::Truncated,
    ] {
        assert_eq!(error.status(), 400);
        assert!(!error.name().is_empty());
        assert!(error.to_string().starts_with(error.sentence()));
    }
}
