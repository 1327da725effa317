//! A feed that says what the test tells it to.

use std::{net::SocketAddr, pin::Pin};

use fairlead_model::{Change, Revision, Update, View};
use fairlead_testkit::Node;
use fairlead_wire::{
    FeedEndpoint,
    proto::{WatchRequest, WatchResponse, feed_server},
    responses,
};
use futures::{Stream, StreamExt, stream};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::{runtime::Runtime, sync::watch};
use tokio_stream::wrappers::{TcpListenerStream, WatchStream};
use tonic::{
    Request, Response, Status,
    transport::{Certificate, Identity, Server, ServerTlsConfig},
};

use crate::running::runtime_in;

const SERVER_NAME: &str = "feed.test";

const PORT: u16 = 6444;

/// The cluster, and the feed that tells of it. It ends when it is dropped.
pub(crate) struct Feed {
    told: watch::Sender<Told>,
    pub(crate) endpoint: FeedEndpoint,
    _runtime: Runtime,
}

/// What there is, and the changes that led to it.
#[derive(Clone, Default)]
struct Told {
    view: View,
    changes: Vec<Update>,
}

impl Told {
    fn add(&mut self, update: Update) {
        self.view.apply(update.clone());
        self.changes.push(update);
    }

    fn snapshot(&self) -> Update {
        Update { revision: self.view.revision(), snapshot: true, changes: self.view.to_changes() }
    }
}

struct Service(watch::Receiver<Told>);

impl Feed {
    /// Listens in a node's namespace, at its first address.
    pub(crate) fn start(node: &Node, changes: Vec<Change>) -> Self {
        let revision = Revision { epoch: 1, sequence: 1 };
        let mut told = Told::default();
        told.add(Update { revision, snapshot: true, changes });
        let (told, receiver) = watch::channel(told);
        let runtime = runtime_in(&node.netns.path());
        let address = SocketAddr::new(node.addresses[0], PORT);
        let serving = runtime.spawn(serve(address, Service(receiver)));
        let endpoint = runtime.block_on(serving).expect("the feed starts");
        Self { told, endpoint, _runtime: runtime }
    }

    /// Tells of changes.
    pub(crate) fn change(&mut self, changes: Vec<Change>) {
        let revision = Revision { epoch: 1, sequence: self.sequence() + 1 };
        self.told.send_modify(|told| told.add(Update { revision, snapshot: false, changes }));
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.told.borrow().view.revision().sequence
    }
}

/// Serves at `address` on the current runtime.
async fn serve(address: SocketAddr, service: Service) -> FeedEndpoint {
    let listener = tokio::net::TcpListener::bind(address).await.expect("a free port");
    let url = format!("https://{}", listener.local_addr().expect("bound"));
    let (server_tls, endpoint) = credentials(url);
    let service = feed_server::FeedServer::new(service);
    let mut server = Server::builder().tls_config(server_tls).expect("good certificates");
    tokio::spawn(server.add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));
    endpoint
}

#[tonic::async_trait]
impl feed_server::Feed for Service {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let told = self.0.clone();
        // Whoever comes is told what there is, in one piece.
        let (snapshot, mut sent) = {
            let told = told.borrow();
            (told.snapshot(), told.changes.len())
        };
        let batches = WatchStream::new(told).map(move |told| {
            let new = told.changes[sent..].to_vec();
            sent = told.changes.len();
            stream::iter(new.into_iter().flat_map(responses).map(Ok))
        });
        let first = stream::iter(responses(snapshot).into_iter().map(Ok));
        Ok(Response::new(Box::pin(first.chain(batches.flatten()))))
    }
}

fn credentials(url: String) -> (ServerTlsConfig, FeedEndpoint) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority =
        CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key")).expect("signs");
    let issue = |names: Vec<String>| {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(names).expect("a name");
        let certificate = params.signed_by(&key, &authority).expect("signs");
        (certificate.pem(), key.serialize_pem())
    };
    let (server_cert, server_key) = issue(vec![SERVER_NAME.to_owned()]);
    let (cert_pem, key_pem) = issue(Vec::new());
    let server = ServerTlsConfig::new()
        .identity(Identity::from_pem(server_cert, server_key))
        .client_ca_root(Certificate::from_pem(authority.pem()));
    let server_name = SERVER_NAME.to_owned();
    (server, FeedEndpoint { url, ca_pem: authority.pem(), cert_pem, key_pem, server_name })
}
