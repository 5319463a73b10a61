{{/* Names and labels. What selects pods never changes: neither version nor anything from values. */}}

{{- define "excite.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 32 | trimSuffix "-" -}}
{{- end -}}

{{/* Short enough for what comes behind it: a Deployment has 63 letters with a pool of 20. */}}
{{- define "excite.fullname" -}}
{{- $name := include "excite.name" . -}}
{{- $both := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $both .Values.fullnameOverride | trunc 32 | trimSuffix "-" -}}
{{- end -}}

{{/* A dict of `root`, `component` and perhaps `pool`. */}}
{{- define "excite.selector" -}}
app.kubernetes.io/name: {{ include "excite.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- with .pool }}
excite/pool: {{ . }}
{{- end }}
{{- end -}}

{{/* Labels of pods. No version: a new chart with the same pods must not roll them. */}}
{{- define "excite.podLabels" -}}
{{- $own := include "excite.selector" . | fromYaml -}}
{{- merge $own (deepCopy (default dict .labels)) (deepCopy .root.Values.commonLabels) | toYaml -}}
{{- end -}}

{{/* Labels of objects. */}}
{{- define "excite.labels" -}}
{{- $own := include "excite.selector" . | fromYaml -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_") -}}
{{- $_ := set $own "app.kubernetes.io/version" (.root.Chart.AppVersion | toString) -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- merge $own (deepCopy (default dict .labels)) (deepCopy .root.Values.commonLabels) | toYaml -}}
{{- end -}}

{{- define "excite.dispatcher" -}}
{{ include "excite.fullname" . }}-dispatcher
{{- end -}}

{{/* Where the dispatcher is, from anywhere in the cluster. */}}
{{- define "excite.server" -}}
http://{{ include "excite.dispatcher" . }}.{{ .Release.Namespace }}.svc:8080
{{- end -}}

{{- define "excite.dispatcherAccount" -}}
{{- default (include "excite.dispatcher" .) .Values.dispatcher.serviceAccount.name -}}
{{- end -}}

{{- define "excite.workerAccount" -}}
{{- default (printf "%s-worker" (include "excite.fullname" .)) .Values.workerServiceAccount.name -}}
{{- end -}}

{{/* A dict of `root`, `repository`, `tag`, `digest` and the `fallback` of an empty tag. */}}
{{- define "excite.image" -}}
{{- $prefix := ternary "" (printf "%s/" (trimSuffix "/" .root.Values.images.registry)) (empty .root.Values.images.registry) -}}
{{- if .digest -}}
{{ printf "%s%s@%s" $prefix .repository .digest }}
{{- else -}}
{{ printf "%s%s:%s" $prefix .repository (default .fallback .tag) }}
{{- end -}}
{{- end -}}

{{- define "excite.cliImage" -}}
{{- $fallback := .Chart.AppVersion | toString -}}
{{- include "excite.image" (merge (dict "root" . "fallback" $fallback) .Values.images.cli) -}}
{{- end -}}

{{- define "excite.dispatcherImage" -}}
{{- $fallback := .Chart.AppVersion | toString -}}
{{- include "excite.image" (merge (dict "root" . "fallback" $fallback) .Values.images.dispatcher) -}}
{{- end -}}

{{/* A dict of `root` and the merged `pool`. */}}
{{- define "excite.workerImage" -}}
{{- $images := .root.Values.images.worker -}}
{{- $version := .root.Chart.AppVersion | toString -}}
{{- $image := dict "repository" $images.repository "tag" $images.tag "digest" $images.digest "fallback" $version -}}
{{- if .pool.gpu -}}
{{- $image = dict "repository" $images.repository "tag" $images.gpuTag "digest" $images.gpuDigest "fallback" (printf "%s-cuda" $version) -}}
{{- end -}}
{{- range $key, $value := .pool.image -}}
{{- $_ := set $image $key $value -}}
{{- end -}}
{{/* A tag of a pool's own would be of no use behind the digest of all. */}}
{{- if and .pool.image.tag (not .pool.image.digest) -}}
{{- $_ := set $image "digest" "" -}}
{{- end -}}
{{- include "excite.image" (merge (dict "root" .root) $image) -}}
{{- end -}}
