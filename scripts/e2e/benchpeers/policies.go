package main

// admissionPolicy is a ValidatingAdmissionPolicy with those of egress-webhook's checks that CEL can express. CEL cannot
// parse JSON, so the expressions search the text. A misplaced field, a repeated key and a name that AWS does not know
// pass.
const admissionPolicy = `apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: egress-policy}
spec:
  failurePolicy: Fail
  matchConstraints:
    objectSelector: {matchLabels: {egress-controller: managed}}
    resourceRules:
      - {apiGroups: [""], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [configmaps]}
  variables:
    - name: policy
      expression: "object.?data['policy.json'].orValue('')"
    - name: cidrs
      expression: >-
        variables.policy.findAll('"cidr"\\s*:\\s*"[^"]*"').map(field, field.split('"')[3])
  validations:
    - expression: variables.policy.size() > 0 && variables.policy.size() <= 262144
    - expression: variables.policy.matches('^\\s*\\{') && variables.policy.matches('\\}\\s*$')
    - expression: variables.policy.contains('"allowedDestinations"')
    - expression: >-
        variables.policy.findAll('"[A-Za-z]+"\\s*:').all(key, key.split('"')[1] in
        ['defaultAction', 'allowedDestinations', 'name', 'cidr', 'awsService', 'regions', 'ports', 'port', 'endPort', 'protocol'])
    - expression: >-
        variables.policy.findAll('"defaultAction"\\s*:\\s*"[^"]*"').all(field, field.split('"')[3] == 'deny')
    - expression: variables.cidrs.all(c, isCIDR(c) && cidr(c) == cidr(c).masked())
    - expression: >-
        variables.policy.findAll('"ports"\\s*:\\s*\\[[^\\]]*\\]').all(ports,
        ports.findAll('[0-9]+').all(port, int(port) >= 1 && int(port) <= 65535))
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: egress-policy}
spec:
  policyName: egress-policy
  validationActions: [Deny]
  matchResources: {namespaceSelector: {matchLabels: {bench: ` + kindCEL + `}}}
`

// kyvernoMatch selects the policies, in both policies of Kyverno. Its webhooks select the namespaces.
const kyvernoMatch = `
      match:
        any:
          - resources:
              kinds: [ConfigMap]
              operations: [CREATE, UPDATE]
              selector: {matchLabels: {egress-controller: managed}}`

// kyvernoValidate has those of egress-webhook's checks that Kyverno can express. Kyverno parses the JSON, but knows
// neither the addresses of a CIDR nor AWS's names, and lets a field that it does not read pass.
const kyvernoValidate = `apiVersion: kyverno.io/v1
kind: ClusterPolicy
metadata: {name: egress-policy}
spec:
  background: false
  rules:
    - name: policy` + kyvernoMatch + `
      context:
        - name: policy
          variable:
            value: "{{ parse_json(request.object.data.\"policy.json\") }}"
      validate:
        failureAction: Enforce
        message: the policy is invalid
        foreach:
          - list: policy.allowedDestinations
            deny:
              conditions:
                any:
                  - key: "{{ element.name || '' }}"
                    operator: Equals
                    value: ""
                  - key: "{{ regex_match('^([0-9]{1,3}[.]){3}[0-9]{1,3}/([0-9]|[12][0-9]|3[0-2])$', element.cidr) }}"
                    operator: Equals
                    value: false
                  - key: "{{ length(element.ports[?@ < ` + "`1` || @ > `65535`" + `]) }}"
                    operator: GreaterThan
                    value: 0
`

// kyvernoGenerate creates the NetworkPolicy that egress-agent creates, and keeps it as generated.
const kyvernoGenerate = `apiVersion: kyverno.io/v1
kind: ClusterPolicy
metadata: {name: egress-policy}
spec:
  background: false
  rules:
    - name: networkpolicy` + kyvernoMatch + `
      context:
        - name: policy
          variable:
            value: "{{ parse_json(request.object.data.\"policy.json\") }}"
        - name: rules
          variable:
            jmesPath: "policy.allowedDestinations[].{ports: ports[].{protocol: 'TCP', port: @}, to: [{ipBlock: {cidr: cidr}}]}"
        - name: dns
          variable:
            value:
              - ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
                to:
                  - podSelector: {matchLabels: {k8s-app: kube-dns}}
                    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}
        - name: egress
          variable:
            jmesPath: "[dns, rules][]"
      generate:
        apiVersion: networking.k8s.io/v1
        kind: NetworkPolicy
        name: "{{ request.object.metadata.name }}"
        namespace: "{{ request.object.metadata.namespace }}"
        synchronize: true
        data:
          spec:
            podSelector: {}
            policyTypes: [Egress]
            egress: "{{ egress }}"
`
