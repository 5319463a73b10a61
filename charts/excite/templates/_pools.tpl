{{/*
A pool with what it leaves to `workerDefaults`, as JSON; a dict of `root` and `name`. Maps of the
first level are merged, the rest replaced. Not sprig's merge: that takes 0 and false for absent.
*/}}
{{- define "excite.pool" -}}
{{- $merged := deepCopy .root.Values.workerDefaults -}}
{{- range $key, $value := index .root.Values.workers .name -}}
{{- $default := index $merged $key -}}
{{- if and (kindIs "map" $value) (kindIs "map" $default) -}}
{{- range $inner, $set := $value -}}
{{- $_ := set $default $inner $set -}}
{{- end -}}
{{- else -}}
{{- $_ := set $merged $key $value -}}
{{- end -}}
{{- end -}}
{{- $merged | toJson -}}
{{- end -}}

{{/* Classes of pools and models, sorted, as a JSON list. */}}
{{- define "excite.classes" -}}
{{- $classes := list -}}
{{- range $name, $_ := .Values.workers -}}
{{- $classes = append $classes (include "excite.pool" (dict "root" $ "name" $name) | fromJson).class -}}
{{- end -}}
{{- range $_, $model := .Values.models -}}
{{- $classes = append $classes (default "default" $model.class) -}}
{{- end -}}
{{- $classes | uniq | sortAlpha | toJson -}}
{{- end -}}

{{/* Models of a class that workers read from volumes, as a JSON map; a dict of `root` and `class`. */}}
{{- define "excite.volumeModels" -}}
{{- $found := dict -}}
{{- range $name, $model := .root.Values.models -}}
{{- if and (eq (default "store" $model.source) "volume") (eq (default "default" $model.class) $.class) -}}
{{- $_ := set $found $name $model -}}
{{- end -}}
{{- end -}}
{{- $found | toJson -}}
{{- end -}}

{{/* What may have any name, as a part of names of objects; and with what makes it the only one. */}}
{{- define "excite.readable" -}}
{{- regexReplaceAll "[^a-z0-9]+" (lower .) "-" | trimAll "-" | trunc 14 | trimSuffix "-" -}}
{{- end -}}
{{- define "excite.slug" -}}
{{- printf "%s-%s" (include "excite.readable" .) (sha256sum . | trunc 6) -}}
{{- end -}}
