{{/* Everything that must exist beside the chart, a line each, Secrets without their kind. */}}
{{- define "excite.secrets" -}}
{{- $values := .Values -}}
{{- $lines := list -}}
{{- range $section := list "broker" "progress" -}}
{{- $set := index $values $section -}}
{{- range $who := list "dispatcher" "worker" -}}
{{- $lines = append $lines (printf "%s / %s: the %s's URL of %s" $set.existingSecret (index $set.keys $who) $who (ternary "RabbitMQ" "Redis" (eq $section "broker"))) -}}
{{- end -}}
{{- end -}}
{{- if $values.broker.policies -}}
{{- $lines = append $lines (printf "%s / %s: the URL of RabbitMQ's management API" $values.broker.existingSecret $values.broker.keys.management) -}}
{{- end -}}
{{- range $secret := list $values.store.existingSecret $values.store.workerExistingSecret | compact -}}
{{- $lines = append $lines (printf "%s / %s: the access key's id for S3" $secret $values.store.keys.accessKeyId) -}}
{{- $lines = append $lines (printf "%s / %s: the secret access key for S3" $secret $values.store.keys.secretAccessKey) -}}
{{- end -}}
{{- range $section := list "broker" "store" "progress" -}}
{{- with (index $values $section).ca -}}
{{- if .secret -}}
{{- $lines = append $lines (printf "%s / %s: certificates for the server of %s" .secret .key $section) -}}
{{- else if .configMap -}}
{{- $lines = append $lines (printf "ConfigMap %s / %s: certificates for the server of %s" .configMap .key $section) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if not $values.access.anyone -}}
{{- $lines = append $lines (printf "%s / %s: the file of hashes of tokens" $values.access.tokens.existingSecret $values.access.tokens.key) -}}
{{- if $values.autoscaling.enabled -}}
{{- $lines = append $lines (printf "%s / %s: a token of scope read, for KEDA" $values.access.scaleToken.existingSecret $values.access.scaleToken.key) -}}
{{- end -}}
{{- end -}}
{{- $pushes := false -}}
{{- $pulls := false -}}
{{- range $_, $model := $values.models -}}
{{- if ne (default "store" $model.source) "store" -}}{{- $pushes = true -}}{{- end -}}
{{- if eq (default "store" $model.source) "hub" -}}{{- $pulls = true -}}{{- end -}}
{{- end -}}
{{- if and $pushes $values.access.pushToken.existingSecret -}}
{{- $lines = append $lines (printf "%s / %s: a token of scope admin, to push models" $values.access.pushToken.existingSecret $values.access.pushToken.key) -}}
{{- end -}}
{{- if $values.access.testToken.existingSecret -}}
{{- $lines = append $lines (printf "%s / %s: a token of scope submit, for helm test" $values.access.testToken.existingSecret $values.access.testToken.key) -}}
{{- end -}}
{{- if and $pulls $values.hub.existingSecret -}}
{{- $lines = append $lines (printf "%s / %s: a token of the hub" $values.hub.existingSecret $values.hub.key) -}}
{{- end -}}
{{- if and $values.dispatcher.ingress.enabled $values.dispatcher.ingress.tlsSecret -}}
{{- $lines = append $lines (printf "%s / tls.crt and tls.key: the Ingress' certificate" $values.dispatcher.ingress.tlsSecret) -}}
{{- end -}}
{{- range $values.imagePullSecrets -}}
{{- $lines = append $lines (printf "%s / .dockerconfigjson: to pull images" .) -}}
{{- end -}}
{{- range $name, $model := $values.models -}}
{{- if eq (default "store" $model.source) "volume" -}}
{{- $lines = append $lines (printf "PersistentVolumeClaim %s: the model %s" $model.claim $name) -}}
{{- end -}}
{{- end -}}
{{- $lines | uniq | toJson -}}
{{- end -}}
