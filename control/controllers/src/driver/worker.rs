//! One controller at work.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{Controller, Executor, Queue};

/// Reconciles one key after the other until the shutdown. A plan that has begun is finished.
pub async fn work(
    controller: Arc<dyn Controller>,
    queue: Arc<Queue>,
    executor: Executor,
    shutdown: CancellationToken,
) {
    loop {
        let key = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            key = queue.next() => key,
        };
        let plan = controller.reconcile(executor.caches(), &key, Timestamp::now());
        let again_in = plan.again_in;
        match executor.execute(plan).await {
            Ok(()) => {
                queue.succeeded(&key);
                if let Some(delay) = again_in {
                    queue.push_after(key, delay);
                }
            }
            Err(error) => {
                let name = controller.name();
                let expected = error.is_conflict();
                let pause = queue.retry(key.clone());
                if expected {
                    tracing::debug!(controller = name, %key, %error, ?pause, "looking again");
                } else {
                    tracing::warn!(controller = name, %key, %error, ?pause, "a write failed; trying again");
                }
            }
        }
    }
}
