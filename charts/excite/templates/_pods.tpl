{{/* What all pods have in common: least rights, and where their servers are. */}}

{{- define "excite.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "excite.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/*
Neither a token of the API server nor variables for each Service of the namespace: those of one
called `excite` would begin with EXCITE_, as settings do.
*/}}
{{- define "excite.podBasics" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
securityContext:
  {{- include "excite.podSecurity" . | nindent 2 }}
{{- end -}}

{{/* A variable from a Secret; a dict of `name`, `secret` and `key`. */}}
{{- define "excite.secretEnv" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ .secret | quote }}
      key: {{ .key | quote }}
{{- end -}}

{{/* URLs and keys of a service; a dict of `root` and `who`: `dispatcher` or `worker`. */}}
{{- define "excite.serviceEnv" -}}
{{- $values := .root.Values -}}
{{ include "excite.brokerEnv" . }}
{{ include "excite.secretEnv" (dict "name" "EXCITE_PROGRESS__URL" "secret" $values.progress.existingSecret "key" (index $values.progress.keys .who)) }}
{{- $secret := $values.store.existingSecret -}}
{{- if and (eq .who "worker") $values.store.workerExistingSecret -}}
{{- $secret = $values.store.workerExistingSecret -}}
{{- end -}}
{{- if $secret }}
{{ include "excite.secretEnv" (dict "name" "AWS_ACCESS_KEY_ID" "secret" $secret "key" $values.store.keys.accessKeyId) }}
{{ include "excite.secretEnv" (dict "name" "AWS_SECRET_ACCESS_KEY" "secret" $secret "key" $values.store.keys.secretAccessKey) }}
{{- end }}
{{- end -}}

{{- define "excite.brokerEnv" -}}
{{- $broker := .root.Values.broker -}}
{{ include "excite.secretEnv" (dict "name" "EXCITE_BROKER__URL" "secret" $broker.existingSecret "key" (index $broker.keys .who)) }}
{{- end -}}

{{/* A dict of `root`, `token` (an entry of `access`) for programs that talk to the dispatcher. */}}
{{- define "excite.clientEnv" -}}
- name: EXCITE_SERVER
  value: {{ include "excite.server" .root }}
{{- if .token.existingSecret }}
{{ include "excite.secretEnv" (dict "name" "EXCITE_TOKEN" "secret" .token.existingSecret "key" .token.key) }}
{{- end }}
{{- end -}}

{{/* Certificates of the sections in `sections`; a dict of `root` and that list. */}}
{{- define "excite.caVolumes" -}}
{{- range $section := .sections }}
{{- $ca := (index $.root.Values $section).ca }}
{{- if $ca.secret }}
- name: ca-{{ $section }}
  secret:
    secretName: {{ $ca.secret | quote }}
    items: [{key: {{ $ca.key | quote }}, path: ca.crt}]
{{- else if $ca.configMap }}
- name: ca-{{ $section }}
  configMap:
    name: {{ $ca.configMap | quote }}
    items: [{key: {{ $ca.key | quote }}, path: ca.crt}]
{{- end }}
{{- end }}
{{- end -}}

{{- define "excite.caMounts" -}}
{{- range $section := .sections }}
{{- $ca := (index $.root.Values $section).ca }}
{{- if or $ca.secret $ca.configMap }}
- name: ca-{{ $section }}
  mountPath: /etc/excite-ca/{{ $section }}
  readOnly: true
{{- end }}
{{- end }}
{{- end -}}
