//! What is behind the proxies: nginx for HTTP, threads of this process for TCP.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::process::Program;
use crate::stage::{BACKENDS, LOAD_CPU, Stage, write};

/// The port of the HTTP backend.
pub(crate) const HTTP: u16 = 9000;

/// Sends back what it gets.
pub(crate) const ECHO: u16 = 9001;

/// Sends zeros until nobody listens any more.
pub(crate) const STREAM: u16 = 9002;

/// One mebibyte.
pub(crate) const MIB: usize = 1 << 20;

const CONFIGURATION: &str = r#"
daemon off; worker_processes 1; pid nginx.pid; error_log stderr error;
worker_rlimit_nofile 65536;
events { worker_connections 16384; }
http {
  access_log off; sendfile on; tcp_nodelay on; keepalive_requests 100000000; keepalive_timeout 300s;
  open_file_cache max=16;
  client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  server {
    listen 9000 backlog=16384;
    location /1mib { root .; default_type application/octet-stream; }
    location / { default_type text/plain; return 200 "one hundred bytes, more or less, is what a small answer of an interface has to say on an average day\n"; }
  }
}
"#;

/// The running backends.
pub(crate) struct Backend {
    _nginx: Program,
}

impl Backend {
    /// Starts them and waits until they listen.
    pub(crate) fn start(stage: &Stage) -> anyhow::Result<Self> {
        let dir = stage.dir("backend")?;
        write(&dir, "nginx.conf", CONFIGURATION)?;
        std::fs::write(dir.join("1mib"), vec![b'x'; MIB])?;
        let arguments = ["-p", ".", "-c", "nginx.conf"];
        let mut nginx = Program::start(&LOAD_CPU.to_string(), &dir, "nginx".as_ref(), arguments)?;
        nginx
            .listens((BACKENDS[0], HTTP).into())
            .context("the backend did not start")?;
        streams();
        Ok(Self { _nginx: nginx })
    }
}

/// Starts the TCP backends once, for the life of the process.
fn streams() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let (ready, started) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            crate::load::block_on(async {
                let echo = listen(ECHO).await;
                let stream = listen(STREAM).await;
                // The other side waits for it.
                let _ = ready.send(());
                tokio::join!(serve(echo, echo_back), serve(stream, pour));
            });
        });
        // An error means that the thread panicked, which it said already.
        let _ = started.recv();
    });
}

async fn listen(port: u16) -> TcpListener {
    let addr = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let listener = TcpListener::bind(addr).await;
    listener.expect("the namespace is new, so its ports are free")
}

async fn serve<F>(listener: TcpListener, handle: fn(TcpStream) -> F)
where
    F: Future<Output = std::io::Result<()>> + 'static,
{
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            // Fails only on a connection that is gone.
            let _ = stream.set_nodelay(true);
            tokio::task::spawn_local(handle(stream));
        }
    }
}

async fn echo_back(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..read]).await?;
    }
}

async fn pour(mut stream: TcpStream) -> std::io::Result<()> {
    // The client says when: some proxies connect long before it is there.
    stream.read_exact(&mut [0]).await?;
    let zeros = vec![0; 256 * 1024];
    loop {
        stream.write_all(&zeros).await?;
    }
}
