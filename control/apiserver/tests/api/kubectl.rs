//! The real kubectl against a running server.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use crate::support::Server;

const MANIFEST: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: demo}
---
apiVersion: v1
kind: Service
metadata: {name: echo, namespace: demo}
spec:
  selector: {app: echo}
  ipFamilyPolicy: PreferDualStack
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: echo, namespace: demo}
spec:
  replicas: 1
  selector: {matchLabels: {app: echo}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      containers: [{name: echo, image: echo, ports: [{containerPort: 8080}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: demo, labels: {app: client}}
spec:
  containers: [{name: client, image: client}]
";

pub(crate) struct Kubectl<'s> {
    server: &'s Server,
}

/// A kubectl of a server's administrator.
pub(crate) fn command(server: &Server, arguments: &str) -> Command {
    let mut command = Command::new("kubectl");
    command
        .arg(format!("--kubeconfig={}", server.kubeconfig().display()))
        .arg(format!("--cache-dir={}", server.dir.path().join("kube-cache").display()))
        .args(arguments.split(' '));
    command
}

impl Kubectl<'_> {
    pub(crate) fn command(&self, arguments: &str) -> Command {
        command(self.server, arguments)
    }

    pub(crate) fn output(&self, arguments: &str) -> Output {
        self.command(arguments)
            .output()
            .expect("kubectl must be installed: apt-get install kubernetes-client")
    }

    /// What kubectl prints when it succeeds.
    pub(crate) fn ok(&self, arguments: &str) -> String {
        let output = self.output(arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {arguments}\n{text}{errors}");
        assert!(!errors.contains("Warning"), "kubectl {arguments}\n{errors}");
        text
    }

    /// What kubectl prints when it fails.
    pub(crate) fn refused(&self, arguments: &str) -> String {
        let output = self.output(arguments);
        assert!(!output.status.success(), "kubectl {arguments} should fail");
        String::from_utf8(output.stderr).unwrap()
    }

    pub(crate) fn with_input(&self, arguments: &str, input: &str) -> Output {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            command.spawn().expect("kubectl must be installed: apt-get install kubernetes-client");
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    pub(crate) fn apply(&self, manifest: &str) -> String {
        let output = self.with_input("apply -f -", manifest);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn stream(&self, arguments: &str) -> Stream {
        let mut child = self.command(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Stream { child, lines }
    }
}

/// A kubectl that goes on printing.
pub(crate) struct Stream {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Stream {
    fn next(&mut self) -> String {
        self.lines.next().expect("kubectl ended").unwrap()
    }

    fn until(&mut self, text: &str) {
        while !self.next().contains(text) {}
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) async fn with_kubectl(test: impl FnOnce(&Kubectl<'_>) + Send + 'static) {
    let server = Server::start().await;
    let server = tokio::task::spawn_blocking(move || {
        test(&Kubectl { server: &server });
        server
    })
    .await
    .unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_applies_shows_and_deletes() {
    with_kubectl(|kubectl| {
        let applied = kubectl.apply(MANIFEST);
        for line in [
            "namespace/demo created",
            "service/echo created",
            "deployment.apps/echo created",
            "pod/client created",
        ] {
            assert!(applied.contains(line), "{applied}");
        }
        let again = kubectl.apply(MANIFEST);
        assert_eq!(again.matches("unchanged").count(), 4, "{again}");
        let changed = kubectl.apply(&MANIFEST.replace("replicas: 1", "replicas: 2"));
        assert_eq!(changed.matches("configured").count(), 1, "{changed}");

        let table = kubectl.ok("get nodes,pods,svc,deploy,rs,endpointslices -A -o wide");
        assert!(table.contains("NOMINATED NODE") && table.contains("10.96.0.10"), "{table}");
        let pods = kubectl.ok("get po -n demo");
        let header: Vec<&str> = pods.lines().next().unwrap().split_whitespace().collect();
        assert_eq!(header, ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]);
        let deployment =
            kubectl.ok("get deploy echo -n demo -o jsonpath={.metadata.generation}/{.spec.replicas}");
        assert_eq!(deployment, "2/2");
        let yaml = kubectl.ok("get svc echo -n demo -o yaml");
        assert!(yaml.contains("ipFamilyPolicy: PreferDualStack"), "{yaml}");
        assert_eq!(
            kubectl.ok("get svc echo -n demo -o jsonpath={.spec.clusterIPs[1]}").find("fd00:96::"),
            Some(0)
        );
        assert!(kubectl.ok("get pods -A --sort-by=.metadata.name").contains("client"));
        assert!(kubectl.ok("get all -n demo").contains("deployment.apps/echo"));
        assert!(kubectl.ok("describe pod client -n demo").contains("Status:"));
        assert!(kubectl.ok("describe svc echo -n demo").contains("TargetPort"));
        assert!(kubectl.ok("describe deploy echo -n demo").contains("StrategyType"));

        kubectl.ok("label pod client -n demo tier=front");
        assert!(kubectl.ok("get pods -n demo -l tier=front -o name").contains("pod/client"));
        kubectl.ok("annotate pod client -n demo note=x");
        kubectl.ok("scale deploy echo -n demo --replicas=5");
        kubectl.ok("set image deploy/echo -n demo echo=other");
        let replicas = kubectl.ok(
            "get deploy echo -n demo -o jsonpath={.spec.replicas}{.spec.template.spec.containers[0].image}",
        );
        assert_eq!(replicas, "5other");
        kubectl.ok("expose deploy echo -n demo --name=other --port=80");
        kubectl.ok("rollout restart deploy/echo -n demo");
        kubectl.ok("delete pod client -n demo");
        assert!(kubectl.refused("get pod client -n demo").contains("pods \"client\" not found"));
        kubectl.ok("delete svc,deploy -n demo --all");
        assert_eq!(kubectl.ok("get svc,deploy -n demo -o name"), "");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_watches_and_waits() {
    with_kubectl(|kubectl| {
        kubectl.apply(MANIFEST);
        let mut watch = kubectl.stream("get pods -n demo -w");
        watch.until("client");
        let mut wait = kubectl.stream("wait --for=condition=Ready pod/client -n demo --timeout=30s");
        let ready = "patch pod client -n demo --subresource=status --type=merge -p \
            {\"status\":{\"phase\":\"Running\",\"conditions\":[{\"type\":\"Ready\",\"status\":\"True\"}]}}";
        kubectl.ok(ready);
        wait.until("condition met");
        watch.until("Running");
        kubectl.ok("delete pod client -n demo --wait=true");
        kubectl.ok("version");
        kubectl.ok("api-resources");
        assert_eq!(kubectl.ok("get --raw /readyz"), "ok");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_says_what_is_wrong() {
    with_kubectl(|kubectl| {
        let bad = |manifest: &str| {
            let output = kubectl.with_input("apply -f -", manifest);
            assert!(!output.status.success());
            String::from_utf8(output.stderr).unwrap()
        };
        let unknown =
            bad("apiVersion: v1\nkind: Nothing\nmetadata: {name: a}\n");
        assert!(unknown.contains("no matches for kind \"Nothing\""), "{unknown}");
        let nowhere = bad("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: gone}\n");
        assert!(nowhere.contains("namespaces \"gone\" not found"), "{nowhere}");
        let invalid = bad("apiVersion: v1\nkind: Pod\nmetadata: {name: A_b}\nspec: {containers: [{name: c, image: i}]}\n");
        assert!(invalid.contains("The Pod \"A_b\" is invalid: metadata.name"), "{invalid}");
        let unknown = bad(
            "apiVersion: v1\nkind: Service\nmetadata: {name: a, colour: red}\nspec: {prots: [], ports: [{port: 1, prot: 2}]}\n",
        );
        for field in ["metadata.colour", "spec.ports[0].prot", "spec.prots"] {
            assert!(unknown.contains(&format!("unknown field \"{field}\"")), "{unknown}");
        }
        assert!(unknown.contains("strict decoding error: "), "{unknown}");
        let typed = bad("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: 7}\n");
        assert!(typed.contains("cannot be handled as a Service"), "{typed}");
        let taken = bad("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIP: 10.96.0.1, ports: [{port: 1}]}\n");
        assert!(taken.contains("provided IP is already allocated"), "{taken}");
        assert!(kubectl.refused("get pods --field-selector=spec.foo=1").contains("field label not supported"));
        assert!(kubectl.refused("logs nothing").contains("pods \"nothing\" not found"));
        kubectl.apply(MANIFEST);
        let mut patch = kubectl.command("patch deploy echo -n demo --type=json -p");
        let patch = patch.arg("[{\"op\":\"test\",\"path\":\"/spec/replicas\",\"value\":9}]").output().unwrap();
        let refused = String::from_utf8(patch.stderr).unwrap();
        assert!(refused.contains("the patch does not apply"), "{refused}");
    })
    .await;
}

/// Typed commands send protobuf, and what they say about the object must arrive.
#[tokio::test(flavor = "multi_thread")]
async fn kubectl_creates_without_a_manifest() {
    with_kubectl(|kubectl| {
        let rows = [
            ("create namespace demo", "get ns demo", "{.status.phase}", "Active"),
            ("create configmap c -n demo --from-literal=a=b", "get cm c -n demo", "{.data.a}", "b"),
            (
                "create secret generic s -n demo --from-literal=a=b",
                "get secret s -n demo",
                "{.type}/{.data.a}",
                "Opaque/Yg==",
            ),
            (
                "create secret tls t -n demo --cert=/dev/null --key=/dev/null --dry-run=server",
                "get ns demo",
                "",
                "tls",
            ),
            ("create serviceaccount robot -n demo", "get sa robot -n demo", "{.metadata.name}", "robot"),
            (
                "create deployment web -n demo --image=web:1 --replicas=0 --port=8080",
                "get deploy web -n demo",
                "{.spec.replicas}/{.spec.strategy.type}/{.spec.selector.matchLabels.app}/\
                 {.spec.template.spec.containers[0].ports[0].containerPort}",
                "0/RollingUpdate/web/8080",
            ),
            (
                "expose deployment web -n demo --port=80 --target-port=http",
                "get svc web -n demo",
                "{.spec.ports[0].port}/{.spec.ports[0].targetPort}/{.spec.selector.app}",
                "80/http/web",
            ),
            (
                "create service clusterip plain -n demo --tcp=5678:8080",
                "get svc plain -n demo",
                "{.spec.type}/{.spec.sessionAffinity}/{.spec.ports[0].targetPort}",
                "ClusterIP/None/8080",
            ),
            (
                "create service clusterip headless -n demo --clusterip=None",
                "get svc headless -n demo",
                "{.spec.clusterIP}",
                "None",
            ),
            (
                "run one -n demo --image=web:1 --restart=Never --env=A=b --labels=x=y",
                "get pod one -n demo",
                "{.spec.restartPolicy}/{.spec.containers[0].env[0].value}/{.metadata.labels.x}",
                "Never/b/y",
            ),
        ];
        for (create, get, path, expected) in rows {
            let created = kubectl.output(create);
            let errors = String::from_utf8_lossy(&created.stderr);
            if path.is_empty() {
                assert!(errors.contains(expected), "{create}: {errors}");
                continue;
            }
            assert!(created.status.success(), "{create}: {errors}");
            assert_eq!(kubectl.ok(&format!("{get} -o jsonpath={path}")), expected, "{create}");
        }
        let again = kubectl.refused("create configmap c -n demo");
        assert!(again.contains("configmaps \"c\" already exists"), "{again}");
        let invalid = kubectl.refused("create namespace UPPER");
        assert!(invalid.contains("The Namespace \"UPPER\" is invalid: metadata.name"), "{invalid}");
        kubectl.ok("delete pod one -n demo");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_explains_every_kind() {
    with_kubectl(|kubectl| {
        let text = kubectl.ok("explain pod.spec.containers");
        for words in ["VERSION:    v1", "FIELD: containers <[]Container>", "imagePullPolicy\t<string>"] {
            assert!(text.contains(words), "{text}");
        }
        let resources = kubectl.ok("api-resources -o name");
        for resource in resources.lines() {
            let name = resource.split('.').next().unwrap();
            let text = kubectl.ok(&format!("explain {name}"));
            assert!(text.contains("DESCRIPTION:") && text.contains("metadata\t<ObjectMeta>"), "{text}");
        }
        let older = kubectl.ok("explain pod.spec.containers --output=plaintext-openapiv2");
        assert!(
            older.contains("RESOURCE: containers <[]Object>") && older.contains("imagePullPolicy"),
            "{older}"
        );
        assert!(kubectl.ok("explain deployment --recursive").contains("matchLabels"));
        assert!(kubectl.refused("explain pod.spec.nothing").contains("field \"nothing\" does not exist"));
    })
    .await;
}

const RIGHTS: &str = "\
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: writer, namespace: demo}
rules: [{apiGroups: [''], resources: [pods], verbs: [create]}]
";

const EVENT: &str = "\
apiVersion: v1
kind: Event
metadata: {name: happened, namespace: demo}
involvedObject: {apiVersion: v1, kind: Pod, name: client, namespace: demo}
reason: Happened
message: it happened
type: Normal
";

/// The status of a deployment that has nothing left to do.
const ROLLED_OUT: &str = "{\"status\":{\"observedGeneration\":99,\"replicas\":4,\"updatedReplicas\":4,\"readyReplicas\":4,\
    \"availableReplicas\":4}}";

/// The manifest in a file, which some commands want.
fn manifest_file(kubectl: &Kubectl<'_>, name: &str, text: &str) -> String {
    let path = kubectl.server.dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// Every command that needs no running pod, in an order in which each finds what it needs, and what it must print.
const COMMANDS: &[(&str, &str)] = &[
    ("version", "Server Version: v1.36"),
    ("cluster-info", "control plane"),
    ("api-versions", "apps/v1"),
    ("api-resources --verbs=list -o wide", "deployments"),
    ("create -f {node} --dry-run=server", "node/n1 created (server dry run)"),
    ("create -f {file}", "deployment.apps/echo created"),
    ("apply -f {file}", "deployment.apps/echo configured"),
    ("apply -f {changed} --dry-run=server", "deployment.apps/echo configured (server dry run)"),
    ("apply -f {changed}", "deployment.apps/echo configured"),
    ("apply -f {changed}", "deployment.apps/echo unchanged"),
    ("apply view-last-applied -f {file}", "kind: Deployment"),
    ("replace -f {file}", "deployment.apps/echo replaced"),
    ("apply --server-side --force-conflicts -f {changed}", "deployment.apps/echo serverside-applied"),
    ("apply set-last-applied --create-annotation -f {file}", "configured"),
    ("apply -f {changed}", "deployment.apps/echo configured"),
    ("auth reconcile -f {rights}", "role.rbac.authorization.k8s.io/writer reconciled"),
    ("apply -k {kustomization}", "configmap/kustomized created"),
    ("get deploy,svc,pods -n demo", "deployment.apps/echo"),
    ("get deploy -n demo -o wide", "CONTAINERS"),
    ("get deploy echo -n demo -o yaml", "kind: Deployment"),
    ("get deploy echo -n demo -o json", "\"kind\": \"Deployment\""),
    ("get deploy echo -n demo -o jsonpath={.spec.replicas}", "3"),
    ("get pods -n demo -o custom-columns=N:.metadata.name", "client"),
    ("get pods -n demo -o name -l app=client", "pod/client"),
    ("get pods -A --field-selector=metadata.name=client", "client"),
    ("get pods -n demo --show-labels", "app=client"),
    ("get all -n demo --chunk-size=1", "service/echo"),
    ("describe deploy echo -n demo", "StrategyType"),
    ("describe ns demo", "Active"),
    ("describe svc echo -n demo", "Selector:"),
    ("get -f {file} -o name", "pod/client"),
    ("patch deploy echo -n demo -p {\"spec\":{\"paused\":true}}", "patched"),
    ("patch deploy echo -n demo --type=merge -p {\"spec\":{\"paused\":null}}", "patched"),
    (
        "patch deploy echo -n demo --type=json -p [{\"op\":\"replace\",\"path\":\"/spec/replicas\",\"value\":2}]",
        "patched",
    ),
    ("label pod client -n demo tier=front", "labeled"),
    ("label pod client -n demo --list", "tier=front"),
    ("label pod client -n demo tier=back --overwrite", "labeled"),
    ("label pod client -n demo tier-", "unlabeled"),
    ("annotate pod client -n demo note=x", "annotated"),
    ("scale deploy echo -n demo --replicas=5", "scaled"),
    ("scale deploy echo -n demo --current-replicas=5 --replicas=4", "scaled"),
    ("set image deploy/echo -n demo echo=other", "image updated"),
    ("set env deploy/echo -n demo A=b", "env updated"),
    ("set resources deploy/echo -n demo --limits=cpu=100m", "resource requirements updated"),
    ("set selector svc echo -n demo app=other", "selector updated"),
    ("set serviceaccount deploy/echo -n demo robot", "serviceaccount updated"),
    ("rollout history deploy/echo -n demo", "deployment.apps/echo"),
    ("rollout pause deploy/echo -n demo", "paused"),
    ("rollout resume deploy/echo -n demo", "resumed"),
    ("rollout restart deploy/echo -n demo", "restarted"),
    ("patch deploy echo -n demo --subresource=status --type=merge -p {rolled}", "patched"),
    ("rollout status deploy/echo -n demo --timeout=5s", "successfully rolled out"),
    ("autoscale deploy echo -n demo --min=2 --max=5 --cpu-percent=70", "autoscaled"),
    (
        "get horizontalpodautoscalers.v1.autoscaling echo -n demo -o jsonpath={.spec.targetCPUUtilizationPercentage}",
        "70",
    ),
    ("get horizontalpodautoscalers.v1.autoscaling -n demo", "cpu: <unknown>/70%"),
    ("get hpa -n demo", "cpu: <unknown>/70%"),
    ("expose deploy echo -n demo --name=other --port=80", "exposed"),
    ("run once -n demo --image=busybox --restart=Never", "pod/once created"),
    ("debug once -n demo --image=busybox --copy-to=copy --container=shell --attach=false", ""),
    ("get pod copy -n demo -o jsonpath={.spec.containers[*].name}", "once shell"),
    ("create role reader -n demo --verb=get --resource=pods", "created"),
    ("create rolebinding readers -n demo --role=reader --user=jane", "created"),
    ("create clusterrole reader --verb=get --resource=pods", "created"),
    ("create clusterrolebinding readers --clusterrole=reader --user=jane", "created"),
    ("set subject clusterrolebinding readers --user=john", "subjects updated"),
    ("create service nodeport open -n demo --tcp=80:8080", "created"),
    ("create service loadbalancer outside -n demo --tcp=80:8080", "created"),
    ("create service externalname elsewhere -n demo --external-name=a.example", "created"),
    ("create configmap c -n demo --from-literal=a=b --dry-run=client -o yaml", "a: b"),
    ("create quota q -n demo --hard=pods=50", "created"),
    ("create pdb budget -n demo --selector=app=echo --min-available=1", "created"),
    ("create priorityclass high --value=1000", "created"),
    ("create job once -n demo --image=busybox", "created"),
    ("create cronjob often -n demo --image=busybox --schedule=@hourly", "created"),
    ("create ingress web -n demo --rule=a.example/*=echo:80", "created"),
    ("create -f {node}", "node/n1 created"),
    ("cordon n1", "cordoned"),
    ("uncordon n1", "uncordoned"),
    ("taint node n1 a=b:NoSchedule", "tainted"),
    ("drain n1 --ignore-daemonsets --force", "drained"),
    ("create -f {event}", "event/happened created"),
    ("events -n demo --for pod/client", "it happened"),
    ("get events -n demo", "it happened"),
    ("get componentstatuses", "Healthy"),
    ("get mutatingadmissionpolicies,mutatingadmissionpolicybindings", ""),
    ("auth whoami", "kubernetes-admin"),
    ("config view --minify", "current-context"),
    ("wait --for=create pod/client -n demo --timeout=5s", "condition met"),
    ("explain deploy.spec.strategy", "rollingUpdate"),
    ("auth can-i create pods", "yes"),
    ("get --raw /api/v1/namespaces/demo/pods?limit=1", "\"continue\""),
    ("replace --force -f {rights}", "role.rbac.authorization.k8s.io/writer replaced"),
    ("delete -f {rights}", "deleted"),
    ("delete pod client -n demo", "deleted"),
    ("delete deploy --all -n demo", "deleted"),
    ("delete ns demo --wait=false", "deleted"),
];

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_runs_every_command_that_needs_no_running_pod() {
    with_kubectl(|kubectl| {
        let file = manifest_file(kubectl, "demo.yaml", MANIFEST);
        let changed = manifest_file(kubectl, "changed.yaml", &MANIFEST.replace("replicas: 1", "replicas: 3"));
        let node = "{\"apiVersion\":\"v1\",\"kind\":\"Node\",\"metadata\":{\"name\":\"n1\"}}";
        let kustomization = "configMapGenerator: [{name: kustomized, literals: [a=b], options: {disableNameSuffixHash: true}}]\n";
        manifest_file(kubectl, "kustomization.yaml", kustomization);
        let files = [
            ("{file}", file),
            ("{changed}", changed),
            ("{node}", manifest_file(kubectl, "node.json", node)),
            ("{rights}", manifest_file(kubectl, "rights.yaml", RIGHTS)),
            ("{event}", manifest_file(kubectl, "event.yaml", EVENT)),
            ("{kustomization}", kubectl.server.dir.path().display().to_string()),
            ("{rolled}", ROLLED_OUT.to_owned()),
        ];
        let mut failed = Vec::new();
        for (command, expected) in COMMANDS {
            let mut command = (*command).to_owned();
            for (name, text) in &files {
                command = command.replace(name, text);
            }
            let output = kubectl.output(&command);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let errors = String::from_utf8_lossy(&output.stderr);
            let as_expected = output.status.success() && text.contains(expected);
            if !as_expected {
                failed.push(format!("kubectl {command}\n{text}{errors}"));
            }
        }
        assert!(failed.is_empty(), "{}", failed.join("\n"));
        let new = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: new}\ndata: {a: b}\n";
        let difference = kubectl.output(&format!("diff -f {}", manifest_file(kubectl, "new.yaml", new)));
        let errors = String::from_utf8_lossy(&difference.stderr);
        assert_eq!(difference.status.code(), Some(1), "{errors}");
        assert!(String::from_utf8_lossy(&difference.stdout).contains("+  a: b"));
    })
    .await;
}

/// What is edited is sent as a patch; what is proxied needs no certificate.
#[tokio::test(flavor = "multi_thread")]
async fn kubectl_edits_and_proxies() {
    with_kubectl(|kubectl| {
        kubectl.apply(MANIFEST);
        let mut edit = kubectl.command("edit deploy echo -n demo");
        let edited = edit.env("KUBE_EDITOR", "sed -i s/replicas:.1/replicas:\\ 6/").output().unwrap();
        let errors = String::from_utf8_lossy(&edited.stderr);
        assert!(String::from_utf8_lossy(&edited.stdout).contains("edited"), "{errors}");
        assert_eq!(kubectl.ok("get deploy echo -n demo -o jsonpath={.spec.replicas}"), "6");

        let mut proxy = kubectl.stream("proxy --port=0");
        let line = proxy.next();
        let address = line.rsplit(' ').next().unwrap();
        let mut stream = std::net::TcpStream::connect(address).expect("the proxy says where it is");
        stream.write_all(b"GET /api/v1/namespaces/demo HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
        assert!(answer.contains("\"phase\":\"Active\""), "{line}\n{answer}");
    })
    .await;
}
