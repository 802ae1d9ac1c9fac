//! hyper-bench: the server bench http on hyper and tokio, with the arguments of gort-bench:
//!
//!     hyper-bench http [--procs P] [port=N]
//!
//! hyper as one would run it: a limit on slow headers, as gort's examples/http and the Go server
//! have. One P is tokio's scheduler for one thread, more are its work-stealing one.
use std::convert::Infallible;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderValue, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::runtime::Builder;

async fn hello(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::new(Bytes::from_static(b"Hello, World!")));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

async fn serve(port: u16) -> std::io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), service_fn(hello))
                .await; // a broken connection is nobody's error
        });
    }
}

fn usage() -> ! {
    eprintln!("usage: hyper-bench http [--procs P] [port=N]");
    std::process::exit(2);
}

fn main() -> std::io::Result<()> {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() != Some("http") {
        eprintln!("hyper-bench: unknown bench, there is http");
        usage();
    }
    let (mut procs, mut port) = (1, 8080);
    while let Some(arg) = args.next() {
        if arg == "--procs" {
            procs = args.next().and_then(|n| n.parse().ok()).unwrap_or_else(|| usage());
        } else {
            port = arg.strip_prefix("port=").and_then(|n| n.parse().ok()).unwrap_or_else(|| usage());
        }
    }
    let mut builder = match procs {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder.worker_threads(procs).enable_all().build()?.block_on(serve(port))
}
