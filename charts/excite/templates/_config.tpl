{{/*
excite.toml. Not Helm's toToml, which writes 4 as 4.0: numbers of values are floats to Helm. JSON's
strings, numbers, booleans and lists are TOML's, too.
*/}}

{{/* A list of dicts of `section` and `values`; null is left out. */}}
{{- define "excite.toml" -}}
{{- range $i, $part := . }}
{{- if $i }}
{{ end }}
[{{ $part.section }}]
{{- range $key, $value := $part.values }}
{{- if not (kindIs "invalid" $value) }}
{{ $key }} = {{ toJson $value }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "excite.caFile" -}}
{{- if or .ca.secret .ca.configMap -}}/etc/excite-ca/{{ .section }}/ca.crt{{- end -}}
{{- end -}}

{{/* What both services are told of servers and logs; passwords are in the environment. */}}
{{- define "excite.commonToml" -}}
{{- $values := .Values -}}
{{- $parts := list -}}
{{- range $section := list "broker" "store" "progress" -}}
{{- $set := dict -}}
{{- with include "excite.caFile" (dict "section" $section "ca" (index $values $section).ca) -}}
{{- $_ := set $set "ca_file" . -}}
{{- end -}}
{{- if eq $section "store" -}}
{{- range $key := list "url" "endpoint" "region" -}}
{{- with index $values.store $key -}}
{{- $_ := set $set $key . -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $set -}}
{{- $parts = append $parts (dict "section" $section "values" $set) -}}
{{- end -}}
{{- end -}}
{{- $parts = append $parts (dict "section" "log" "values" .Values.log) -}}
{{- include "excite.toml" $parts | trim -}}
{{- end -}}

{{/* The dearest price, or nothing if no pool has one: the dispatcher knows one. */}}
{{- define "excite.price" -}}
{{- $prices := list -}}
{{- range $name, $_ := .Values.workers -}}
{{- $price := (include "excite.pool" (dict "root" $ "name" $name) | fromJson).pricePerHour -}}
{{- if not (kindIs "invalid" $price) -}}
{{- $prices = append $prices $price -}}
{{- end -}}
{{- end -}}
{{- if $prices -}}
{{- $dearest := first $prices -}}
{{- range $prices -}}{{- if gt (float64 .) (float64 $dearest) -}}{{- $dearest = . -}}{{- end -}}{{- end -}}
{{- toJson $dearest -}}
{{- end -}}
{{- end -}}

{{- define "excite.dispatcherToml" -}}
{{- $values := .Values -}}
{{- $own := deepCopy .Values.dispatcher.config -}}
{{- $_ := set $own "listen" "0.0.0.0:8080" -}}
{{- if .Values.access.anyone -}}
{{- $_ := set $own "anyone" true -}}
{{- else -}}
{{- $_ := set $own "tokens_file" "/etc/excite-tokens/tokens" -}}
{{- end -}}
{{- $_ := set $own "classes" (include "excite.classes" . | fromJsonArray) -}}
{{- with include "excite.price" . -}}
{{- $_ := set $own "price_per_gpu_hour" (float64 .) -}}
{{- end -}}
{{- $parts := list (dict "section" "dispatcher" "values" $own) -}}
{{- range $name, $_ := .Values.workers -}}
{{- $pool := include "excite.pool" (dict "root" $ "name" $name) | fromJson -}}
{{- $set := dict "class" $pool.class "min" $pool.min "max" $pool.max "drain_seconds" $pool.drainSeconds "start_seconds" $pool.startSeconds -}}
{{- $parts = append $parts (dict "section" (printf "dispatcher.pools.%s" $name) "values" $set) -}}
{{- end -}}
{{ include "excite.commonToml" . }}

{{ include "excite.toml" $parts | trim }}
{{ end -}}

{{/* A dict of `root`, `name` and the merged `pool`. */}}
{{- define "excite.workerToml" -}}
{{- $own := deepCopy .pool.config -}}
{{- $_ := set $own "pool" .name -}}
{{- $_ := set $own "class" .pool.class -}}
{{- $_ := set $own "device" (ternary "cuda" "cpu" (not (empty .pool.gpu))) -}}
{{- $_ := set $own "listen" "0.0.0.0:9464" -}}
{{- $_ := set $own "cache_dir" "/var/cache/excite" -}}
{{- if include "excite.volumeModels" (dict "root" .root "class" .pool.class) | fromJson -}}
{{- $_ := set $own "models_dir" "/models" -}}
{{- end -}}
{{ include "excite.commonToml" .root }}

{{ include "excite.toml" (list (dict "section" "worker" "values" $own)) | trim }}
{{ end -}}
